"""ResNets for small images: a 3x3 stem at full resolution and no max-pool, `resnet18_small` and its siblings.

in   [n, c, h, w], from about 16 x 16
out  maps at 1, 1, 1/2, 1/4 and 1/8 of the image's sides; vector [n, d]
The stem is that of the CIFAR ResNets of He et al., 2016, https://arxiv.org/abs/1512.03385, section 4.2.
"""

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import nn


class SmallResNet(ResNet):
    """timm's ResNet with another stem. Every keyword of timm's ResNet works, for example `channels`."""

    def __init__(self, in_chans: int = 3, **options):
        super().__init__(in_chans=in_chans, **options)
        self.conv1 = nn.Conv2d(in_chans, int(self.feature_info[0]["num_chs"]), 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.maxpool = nn.Identity()
        for info, reduction in zip(self.feature_info, (1, 1, 2, 4, 8), strict=True):
            info["reduction"] = reduction


_cfg = {
    "input_size": (3, 32, 32),
    "num_classes": 0,
    "pool_size": (4, 4),
    "crop_pct": 1.0,
    "first_conv": "conv1",
    "classifier": "fc",
}
default_cfgs = generate_default_cfgs({f"resnet{depth}_small": _cfg for depth in (10, 18, 34, 50)})


def _resnet(name: str, block: type, layers: tuple[int, ...], pretrained: bool, options: dict) -> SmallResNet:
    options = {"block": block, "layers": layers, **options}
    return build_model_with_cfg(SmallResNet, name, pretrained, **options)


@register_model
def resnet10_small(pretrained: bool = False, **kwargs) -> SmallResNet:
    """ResNet-10 for small images: one basic block per stage."""
    return _resnet("resnet10_small", BasicBlock, (1, 1, 1, 1), pretrained, kwargs)


@register_model
def resnet18_small(pretrained: bool = False, **kwargs) -> SmallResNet:
    """The ResNet-18 that most work on CIFAR uses."""
    return _resnet("resnet18_small", BasicBlock, (2, 2, 2, 2), pretrained, kwargs)


@register_model
def resnet34_small(pretrained: bool = False, **kwargs) -> SmallResNet:
    """ResNet-34 for small images."""
    return _resnet("resnet34_small", BasicBlock, (3, 4, 6, 3), pretrained, kwargs)


@register_model
def resnet50_small(pretrained: bool = False, **kwargs) -> SmallResNet:
    """ResNet-50 for small images."""
    return _resnet("resnet50_small", Bottleneck, (3, 4, 6, 3), pretrained, kwargs)
