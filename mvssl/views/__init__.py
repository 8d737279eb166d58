"""Views: what the encoders see of a sample, drawn for whole batches on their device, without any generator state."""

from mvssl.views.base import Geometry, Kind, Spectrogram, View
from mvssl.views.image import ImageView
from mvssl.views.logmel import LogMelView
from mvssl.views.presets import PRESETS
from mvssl.views.signal import SignalView
from mvssl.views.vector import VectorView
from mvssl.views.view_set import VIEWS, ViewSet, build_alike, build_views, resolve_statistics

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
    "build_alike",
    "build_views",
    "resolve_statistics",
]
