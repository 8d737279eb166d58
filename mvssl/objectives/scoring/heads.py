"""Heads: networks between the encoder's features and an objective's scores.

in   a map [n, c, h, w] or a vector [n, d], and which rows are present
out  embeddings [n, l, units] of its l locations, or [n, units] of a vector
"""

import math
from collections.abc import Callable, Mapping

import torch
from einops import rearrange
from torch import Tensor, nn

from mvssl.distributed.devices import scattered, true_indices
from mvssl.encoders import Widths
from mvssl.errors import RecipeError
from mvssl.recipe.draw_names import first_draw_name, view_of_draw


class DIMHead(nn.Module):
    """LayerNorm(net(x) + shortcut(x)) at every location, net = 1x1 conv, BatchNorm, ReLU, 1x1 conv.

    The score network of Deep InfoMax (Hjelm et al., 2019, arXiv:1808.06670). The shortcut starts as a noisy copy.
    """

    def __init__(self, width: int, units: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(width, units, 1, bias=False), nn.BatchNorm2d(units), nn.ReLU(), nn.Conv2d(units, units, 1)
        )
        self.shortcut = _near_identity(nn.Conv2d(width, units, 1, bias=False))
        self.norm = nn.LayerNorm(units)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(_by_location(self.net(x) + self.shortcut(x)))


class AMDIMHead(nn.Module):
    """BatchNorm(net(x) + shortcut(x)) at every location, net = 1x1 conv, ReLU, 1x1 conv that starts at zero.

    The head of AMDIM's local features (Bachman et al., 2019, arXiv:1906.00910). It starts as a noisy, normalised copy.
    """

    def __init__(self, width: int, units: int):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(width, units, 1, bias=False), nn.ReLU(), nn.Conv2d(units, units, 1, bias=False)
        )
        nn.init.zeros_(self.net[2].weight)  # pyright: ignore[reportArgumentType]
        self.shortcut = _near_identity(nn.Conv2d(width, units, 1))
        self.norm = nn.BatchNorm2d(units)

    def forward(self, x: Tensor) -> Tensor:
        return _by_location(self.norm(self.net(x) + self.shortcut(x)))


class NoHead(nn.Module):
    """A map [n, c, h, w] or vector [n, d] itself as the embeddings [n, l, c] of its locations."""

    def forward(self, x: Tensor) -> Tensor:
        return _by_location(x) if x.dim() == 4 else x[:, None]


class FlatHead(nn.Module):
    """One embedding of a full map, [n, c, h, w] -> [n, 1, units], by a perceptron; without `units` the flat map."""

    def __init__(self, width: tuple[int, int, int], units: int | None = None, hidden: int = 512):
        super().__init__()
        self.net = nn.Identity() if units is None else perceptron(math.prod(width), hidden, units)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(1))[:, None]


def perceptron(width: int, *following: int) -> nn.Sequential:
    """Return linear layers of the given widths with ReLU between them."""
    layers: list[nn.Module] = []
    for wide, narrow in zip((width, *following), following, strict=False):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class PerView(nn.Module):
    """One module for each view, built by `build(view)` and indexed by the view's name.

    `share` true: one for all views; false: one for each; None: the draws of one view (a_0, a_1, ... of `count`) share,
    other views do not. Views can share if their `sizes` are equal. The name of a view with several draws stands for
    the first of them. Raises `RecipeError` where `share` is true and sizes differ.
    """

    def __init__(
        self,
        widths: Mapping[str, Widths],
        sizes: Mapping[str, object],
        build: Callable[[str], nn.Module],
        share: bool | None,
    ):
        super().__init__()
        if share and len(set(sizes.values())) > 1:
            listed = ", ".join(f"{view} {size}" for view, size in sizes.items())
            raise RecipeError(f"share_heads: true needs features of equal sizes; these are {listed}")
        self.owner = {view: _owner(view, widths, sizes, share) for view in sizes}
        for view in dict.fromkeys(self.owner.values()):
            self.add_module(f"of_{view}", build(view))  # "of_", as a view may be called `half` or `type`

    def __getitem__(self, view: str) -> nn.Module:
        return self.get_submodule(f"of_{self.owner[resolve_view(view, self.owner)]}")


def _owner(view: str, widths: Mapping[str, Widths], sizes: Mapping[str, object], share: bool | None) -> str:
    """The view whose module this view uses: the first that it can share with."""
    if share is False:
        return view
    base = {name: width.base or view_of_draw(name, widths) for name, width in widths.items()}
    return next(name for name in sizes if share or (base[name] == base[view] and sizes[name] == sizes[view]))


def resolve_view(view: str, views: Mapping[str, object]) -> str:
    """Return the view of that name, or its first draw. Raises `RecipeError` if there is none."""
    name = first_draw_name(view, views)
    if name is None:
        raise RecipeError(f"the objective was built without a view {view!r}; it has {', '.join(views)}")
    return name


def apply_to_present(head: nn.Module, x: Tensor, present: Tensor | None) -> Tensor:
    """Return head(x) where only present rows enter the head's BatchNorm; the other rows are zeros."""
    if present is None:
        return head(x)
    rows = true_indices(present, x.device)
    return scattered(head(x.index_select(0, rows)), rows, len(x))


def _near_identity(conv: nn.Conv2d) -> nn.Conv2d:
    """Weights uniform in +-0.01 with ones on the diagonal, if there is room to copy the input."""
    if conv.out_channels >= conv.in_channels:
        with torch.no_grad():
            conv.weight.uniform_(-0.01, 0.01)
            conv.weight[:, :, 0, 0].fill_diagonal_(1)
    return conv


def _by_location(x: Tensor) -> Tensor:
    return rearrange(x, "n u h w -> n (h w) u")
