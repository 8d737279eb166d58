"""Encoders: backbones of timm by name, and the networks of the papers, which are registered with timm.

in   a view [n, c, h, w], [n, c, t] or [n, d]
out  `Features`: maps shallow to deep, each [n, c, h, w], and one vector [n, d] per sample

Importing this package registers dim_conv32, dim_conv64, amdim_32, amdim_64, amdim_128, resnet18_small and its siblings,
conv1d and mlp with timm, so `timm.create_model` builds them by name.
"""

from mvssl.encoders import amdim, conv1d_net, dim, mlp, small_resnet
from mvssl.encoders.encoder import Encoder
from mvssl.encoders.features import Features, Widths, as_image, at_least_float32, with_view

__all__ = [
    "Encoder", "Features", "Widths", "amdim", "as_image", "at_least_float32", "conv1d_net", "dim", "mlp",
    "small_resnet", "with_view",
]  # fmt: skip
