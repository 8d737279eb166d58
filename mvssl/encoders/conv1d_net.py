"""`conv1d`: a convolutional network on 1-D signals, plain or residual.

in   [n, c, t], or [n, c, 1, t]: a signal is an image one pixel high
out  a map [n, k, 1, t'] after each stage, halved each time; vector [n, k], the last map averaged over time
Wang, Yan and Oates, 2017, https://arxiv.org/abs/1611.06455: convolutions, batch norm and ReLU, then an average; their
ResNet adds shortcuts. Here each stage halves the time, so long recordings cost little.
"""

from collections.abc import Sequence

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from mvssl.encoders.backbone import Backbone, describe_network


class ResidualBlock1d(nn.Module):
    """x -> relu(x + norm(conv(relu(norm(conv x)))))."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        convolution, norm = _convolution(channels, channels, kernel, 1), nn.BatchNorm1d(channels)
        self.layers = nn.Sequential(_layer(channels, channels, kernel, 1), convolution, norm)
        nn.init.zeros_(norm.weight)  # a block starts as its shortcut (Goyal et al., 2017, arXiv:1706.02677)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.layers(x)).relu()


class Conv1dNet(Backbone):
    """Stages with `channels`: each a strided convolution of width `kernels`, then `blocks` residual blocks.

    `kernels` is one width for all stages, or a list whose last entry is repeated.
    """

    def __init__(
        self,
        in_chans: int = 1,
        num_classes: int = 0,
        channels: Sequence[int] = (64, 128, 256),
        kernels: int | Sequence[int] = (9, 5),
        stride: int = 2,
        blocks: int = 0,
    ):
        super().__init__()
        kernels = [kernels] if isinstance(kernels, int) else list(kernels)
        if not channels or not kernels or min(*channels, *kernels, stride) < 1 or blocks < 0:
            raise ValueError(f"channels {list(channels)}, kernels {kernels}, stride {stride}: give numbers above 0")
        kernels = [*kernels, *kernels[-1:] * len(channels)][: len(channels)]
        self.in_chans, self.num_features = in_chans, channels[-1]
        stages, wide = [], [in_chans, *channels]
        for c, d, kernel in zip(wide, channels, kernels, strict=False):
            residual = (ResidualBlock1d(d, kernel) for _ in range(blocks))
            stages.append(nn.Sequential(_layer(c, d, kernel, stride), *residual))
        self.stages = nn.ModuleList(stages)
        self.feature_info = [
            {"num_chs": d, "reduction": stride ** (i + 1), "module": f"stages.{i}"} for i, d in enumerate(channels)
        ]
        self.reset_classifier(num_classes)

    def run(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, maps = x.flatten(2), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x[:, :, None])
        return x, maps

    def pool(self, x: Tensor) -> Tensor:
        return x.mean(2)


def _layer(in_chans: int, out_chans: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = _convolution(in_chans, out_chans, kernel, stride)
    return nn.Sequential(convolution, nn.BatchNorm1d(out_chans), nn.ReLU())


def _convolution(in_chans: int, out_chans: int, kernel: int, stride: int) -> nn.Conv1d:
    return nn.Conv1d(in_chans, out_chans, kernel, stride, padding=kernel // 2, bias=False)


default_cfgs = generate_default_cfgs({"conv1d": describe_network((1, 1, 128), mean=(0.0,), std=(1.0,))})


@register_model
def conv1d(pretrained: bool = False, **kwargs) -> Conv1dNet:
    """Convolutions over time, by default 64, 128 and 256 channels."""
    return build_model_with_cfg(Conv1dNet, "conv1d", pretrained, **kwargs)
