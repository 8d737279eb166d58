"""DIM's convolutional encoder, `dim_conv32` and `dim_conv64`: strided convolutions, a wide layer, a 64-d code.

in   [n, c, 32, 32]          (dim_conv64: [n, c, 64, 64])
out  maps 64@16x16, 128@8x8, 256@4x4 and the wide layer as 1024@1x1; vector [n, 64]
Hjelm et al., 2019, https://arxiv.org/abs/1808.06670, appendix A
"""

from collections.abc import Sequence

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from mvssl.encoders.backbone import Backbone, describe_network


class DIMConv(Backbone):
    """Convolutions 4/2/1 of `channels`, a fully connected layer of `hidden` units, a linear code of `code`."""

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 0,
        img_size: int | Sequence[int] = 32,
        channels: Sequence[int] = (64, 128, 256),
        hidden: int = 1024,
        code: int = 64,
    ):
        super().__init__()
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        fold = 2 ** len(channels)
        if height % fold or width % fold:
            raise ValueError(f"{len(channels)} halvings need sides divisible by {fold}, not {height} x {width}")
        self.in_chans, self.num_features = in_chans, code
        wide = [in_chans, *channels]
        self.blocks = nn.ModuleList(_block(c, d) for c, d in zip(wide, channels, strict=False))
        self.fc = nn.Linear(wide[-1] * (height // fold) * (width // fold), hidden, bias=False)
        self.fc_norm = nn.BatchNorm1d(hidden)
        self.code = nn.Linear(hidden, code)
        self.feature_info = [
            {"num_chs": c, "reduction": 2 ** (i + 1), "module": f"blocks.{i}"} for i, c in enumerate(channels)
        ]
        self.feature_info.append({"num_chs": hidden, "reduction": height, "module": "fc_norm"})
        self.reset_classifier(num_classes)

    def run(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        hidden = self.fc_norm(self.fc(x.flatten(1))).relu()
        return hidden, [*maps, hidden[:, :, None, None]]

    def pool(self, x: Tensor) -> Tensor:
        return self.code(x)


def _block(in_chans: int, out_chans: int) -> nn.Sequential:
    convolution = nn.Conv2d(in_chans, out_chans, 4, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out_chans), nn.ReLU())


_HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
default_cfgs = generate_default_cfgs(
    {
        f"dim_conv{side}": describe_network((3, side, side), fixed_input_size=True, first_conv="blocks.0.0", **_HALF)
        for side in (32, 64)
    }
)


@register_model
def dim_conv32(pretrained: bool = False, **kwargs) -> DIMConv:
    """DIM's encoder for 32 x 32 images, 4.92 M parameters."""
    return build_model_with_cfg(DIMConv, "dim_conv32", pretrained, **kwargs)


@register_model
def dim_conv64(pretrained: bool = False, **kwargs) -> DIMConv:
    """DIM's encoder with a fourth convolution, for 64 x 64 images."""
    arguments = {"channels": (64, 128, 256, 512), **kwargs}
    return build_model_with_cfg(DIMConv, "dim_conv64", pretrained, **arguments)
