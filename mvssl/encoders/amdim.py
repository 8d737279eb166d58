"""AMDIM's encoder, `amdim_32`, `amdim_64` and `amdim_128`: no padding, so receptive fields are small.

in   [n, c, s, s] with s = 32, 64 or 128
out  maps 7x7, 5x5 and 1x1 (the last with n_rkhs channels); vector [n, n_rkhs] = the 1x1 map
Bachman et al., 2019, https://arxiv.org/abs/1906.00910, section 3.5
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from mvssl.encoders.backbone import Backbone, describe_network


class Unit(nn.Module):
    """x -> conv2(relu(norm(conv1 x))) + average-pooled x with zero channels added; conv2 is 1x1."""

    def __init__(self, in_chans: int, out_chans: int, kernel: int, stride: int, use_bn: bool):
        super().__init__()
        self.kernel, self.stride, self.grow = kernel, stride, out_chans - in_chans
        self.conv1 = nn.Conv2d(in_chans, out_chans, kernel, stride, bias=False)
        self.norm = nn.BatchNorm2d(out_chans) if use_bn else nn.Identity()
        self.conv2 = nn.Conv2d(out_chans, out_chans, 1, bias=False)
        # Fixup (Zhang et al., 2019, arXiv:1901.09321): without batch norm a unit has to start as its shortcut
        nn.init.kaiming_uniform_(self.conv1.weight, a=math.sqrt(5))
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.kernel == 1 else F.avg_pool2d(x, self.kernel, self.stride)
        return self.conv2(self.norm(self.conv1(x)).relu()) + F.pad(shortcut, (0, 0, 0, 0, 0, self.grow))


def _block(in_chans: int, out_chans: int, kernel: int, stride: int, depth: int, use_bn: bool) -> nn.Sequential:
    first = Unit(in_chans, out_chans, kernel, stride, use_bn)
    return nn.Sequential(first, *(Unit(out_chans, out_chans, 1, 1, use_bn) for _ in range(depth - 1)))


def _stem(in_chans: int, out_chans: int, kernel: int, stride: int, padding: int, use_bn: bool) -> nn.Sequential:
    # padding by reflection: zeros would show a location how far it is from the border
    convolution = nn.Conv2d(in_chans, out_chans, kernel, stride, padding, bias=False, padding_mode="reflect")
    return nn.Sequential(convolution, nn.BatchNorm2d(out_chans) if use_bn else nn.Identity(), nn.ReLU())


def _to_seven(size: int, in_chans: int, ndf: int, depth: int, use_bn: bool) -> list[nn.Module]:
    """Layers from the image to the 7x7 map; receptive fields 8, 16 and 35 pixels for size 32, 64 and 128."""
    if size == 32:
        return [
            _stem(in_chans, ndf, 3, 1, 0, use_bn),
            Unit(ndf, ndf, 1, 1, use_bn),
            _block(ndf, 2 * ndf, 4, 2, depth, use_bn),
            _block(2 * ndf, 4 * ndf, 2, 2, depth, use_bn),
        ]
    wide = [_stem(in_chans, ndf, 5, 2, 2, use_bn), _stem(ndf, ndf, 3, 1, 0, use_bn)]
    return [
        *(wide if size == 128 else [_stem(in_chans, ndf, 3, 1, 0, use_bn)]),
        _block(ndf, 2 * ndf, 4, 2, depth, use_bn),
        _block(2 * ndf, 4 * ndf, 4, 2, depth, use_bn),
        _block(4 * ndf, 8 * ndf, 2, 2, depth, use_bn),
    ]


class AMDIMNet(Backbone):
    """The trunk of AMDIM up to the 1x1 map. The 7x7 and 5x5 maps have no head here: the objective has them.

    `ndf` channels after the stem, `n_rkhs` at the end, `depth` units per block, `use_bn` batch norm inside the trunk.
    The authors leave it out, since it leaks correlations between the views of a pair.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 0,
        img_size: int | Sequence[int] = 32,
        ndf: int = 128,
        n_rkhs: int = 1024,
        depth: int = 3,
        use_bn: bool = False,
    ):
        super().__init__()
        sides = {img_size} if isinstance(img_size, int) else set(img_size)
        if len(sides) != 1 or not sides <= {32, 64, 128}:
            raise ValueError(f"images must be 32, 64 or 128 pixels square, not {img_size}")
        size = sides.pop()
        trunk = ndf * (4 if size == 32 else 8)
        if n_rkhs < trunk:
            raise ValueError(f"n_rkhs must be at least the trunk's {trunk} channels, not {n_rkhs}")
        self.in_chans, self.num_features = in_chans, n_rkhs
        norm = nn.BatchNorm2d(trunk) if use_bn else nn.Identity()
        self.to_7 = nn.Sequential(*_to_seven(size, in_chans, ndf, depth, use_bn), norm)
        self.to_5 = _block(trunk, trunk, 3, 1, depth, use_bn)
        self.to_1 = nn.Sequential(_block(trunk, trunk, 3, 1, depth, use_bn), Unit(trunk, n_rkhs, 3, 1, use_bn))
        self.norm = nn.BatchNorm2d(n_rkhs)
        self.feature_info = [
            {"num_chs": trunk, "reduction": size // 8, "module": "to_7"},
            {"num_chs": trunk, "reduction": size // 8, "module": "to_5"},
            {"num_chs": n_rkhs, "reduction": size, "module": "norm"},
        ]
        self.reset_classifier(num_classes)

    def run(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        seven = self.to_7(x)
        five = self.to_5(seven)
        one = self.norm(self.to_1(five))
        return one, [seven, five, one]

    def pool(self, x: Tensor) -> Tensor:
        return x.flatten(1)


default_cfgs = generate_default_cfgs(
    {
        f"amdim_{side}": describe_network((3, side, side), fixed_input_size=True, first_conv="to_7.0.0")
        for side in (32, 64, 128)
    }
)


@register_model
def amdim_32(pretrained: bool = False, **kwargs) -> AMDIMNet:
    """AMDIM's encoder for 32 x 32 images; ndf 256, n_rkhs 2048, depth 10 is the authors' CIFAR network."""
    return build_model_with_cfg(AMDIMNet, "amdim_32", pretrained, **kwargs)


@register_model
def amdim_64(pretrained: bool = False, **kwargs) -> AMDIMNet:
    """AMDIM's encoder for 64 x 64 images."""
    return build_model_with_cfg(AMDIMNet, "amdim_64", pretrained, **kwargs)


@register_model
def amdim_128(pretrained: bool = False, **kwargs) -> AMDIMNet:
    """AMDIM's encoder for 128 x 128 images; ndf 320, n_rkhs 2560, depth 10 is the authors' largest."""
    return build_model_with_cfg(AMDIMNet, "amdim_128", pretrained, **kwargs)
