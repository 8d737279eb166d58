"""`mlp`: fully connected layers on feature vectors, or on flattened images and signals.

in   [n, d], [n, c, t] or [n, c, h, w], flattened
out  no maps; vector [n, output]
With its defaults on MNIST it is the trunk of Federici et al., 2020, https://arxiv.org/abs/2002.07017, appendix G.1.
"""

from collections.abc import Sequence

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from mvssl.encoders.backbone import Backbone, describe_network


class MLP(Backbone):
    """Layers of the given `widths`, each followed by a ReLU; `output` adds a last linear layer.

    `norm` adds batch norm before each ReLU.
    """

    def __init__(
        self,
        in_chans: int = 1,
        num_classes: int = 0,
        img_size: int | Sequence[int] = 28,
        widths: Sequence[int] = (1024, 1024),
        output: int | None = None,
        norm: bool = False,
    ):
        super().__init__()
        following = [*widths] if output is None else [*widths, output]
        if not following or min(following) < 1:
            raise ValueError("widths and output: give at least one layer, of at least one unit each")
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.in_chans = in_chans
        inner = [in_chans * height * width, *widths]
        layers: list[nn.Module] = []
        for n_in, n_out in zip(inner, widths, strict=False):
            layers += [nn.Linear(n_in, n_out), *([nn.BatchNorm1d(n_out)] if norm else []), nn.ReLU()]
        if output is not None:
            layers.append(nn.Linear(inner[-1], output))
        self.layers = nn.Sequential(*layers)
        self.num_features = inner[-1] if output is None else output
        self.feature_info: list[dict] = []
        self.reset_classifier(num_classes)

    def run(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        return self.layers(x.flatten(1)), []

    def pool(self, x: Tensor) -> Tensor:
        return x


default_cfgs = generate_default_cfgs(
    {"mlp": describe_network((1, 28, 28), fixed_input_size=True, mean=(0.0,), std=(1.0,))}
)


@register_model
def mlp(pretrained: bool = False, **kwargs) -> MLP:
    """Fully connected layers, by default 1024 and 1024."""
    return build_model_with_cfg(MLP, "mlp", pretrained, **kwargs)
