"""Views: what the encoders get of a sample, drawn for full batches on their device.

in   a `Batch` of columns, the tables `views` of a recipe, a seed
out  a `ViewSet`, which draws every view of a batch; each is a subclass of `View`, built in or a user's own

Random numbers have no state: each is a function of the seed, the sample's position and a name.
"""

from mvssl.views.base import Geometry, Kind, Spectrogram, View
from mvssl.views.image import ImageView
from mvssl.views.logmel import LogMelView
from mvssl.views.presets import PRESETS
from mvssl.views.signal import SignalView
from mvssl.views.vector import VectorView
from mvssl.views.view_set import VIEWS, ViewSet, build_matching_views, build_views, resolve_statistics

__all__ = [
    "PRESETS",
    "VIEWS",
    "Geometry",
    "ImageView",
    "Kind",
    "LogMelView",
    "SignalView",
    "Spectrogram",
    "VectorView",
    "View",
    "ViewSet",
    "build_matching_views",
    "build_views",
    "resolve_statistics",
]
