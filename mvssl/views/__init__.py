"""Views: the inputs of the encoders, made from columns for full batches on the device of the encoders.

in   the `views` of a recipe, the columns of a batch (uint8 or float32, [n, c, h, w], [n, c, t] or [n, d]), and a seed
out  float32 tensors by view, [n, *shape]; `ViewSet` draws them, each view is a subclass of `View`

Random numbers have no state: each depends only on the seed, the sample's position and a name.
"""

from mvssl.views.base import DrawnView, Geometry, Kind, Spectrogram, View
from mvssl.views.images.image import ImageView
from mvssl.views.logmel import LogMelView
from mvssl.views.presets import PRESETS
from mvssl.views.signal import SignalView
from mvssl.views.vector import VectorView
from mvssl.views.view_set import VIEWS, ViewSet, build_matching_views, build_views, resolve_statistics

__all__ = [
    "PRESETS",
    "VIEWS",
    "DrawnView",
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
