"""Heads: what an objective puts between the encoder's features and its scores.

in   a map [n, c, h, w] or a vector [n, d], and which rows are present
out  embeddings [n, l, units] of its l locations, or [n, units] of a vector
"""

import math
from collections.abc import Callable, Mapping

import torch
from einops import rearrange
from torch import Tensor, nn

from mvssl.distributed.devices import rows_of, scattered, send
from mvssl.encoders.encoder import Widths
from mvssl.errors import RecipeError
from mvssl.views.naming import base_by_name, first_drawn


class DIMHead(nn.Module):
    """LayerNorm(net(x) + shortcut(x)) at every location, net = 1x1 conv, BatchNorm, ReLU, 1x1 conv.

    The score network of Deep InfoMax (Hjelm et al., 2019, arXiv:1808.06670); the shortcut starts as a noisy copy.
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

    The head of AMDIM's local features (Bachman et al., 2019, arXiv:1906.00910): at first a noisy copy, normalised.
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


class AsItIs(nn.Module):
    """No head: a map [n, c, h, w] or vector [n, d] as embeddings of its locations."""

    def forward(self, x: Tensor) -> Tensor:
        return _by_location(x) if x.dim() == 4 else x[:, None]


class FlatHead(nn.Module):
    """The whole map at once, [n, c, h, w] -> [n, 1, units], by a perceptron; without `units` the map as a vector."""

    def __init__(self, width: tuple[int, int, int], units: int | None = None, hidden: int = 512):
        super().__init__()
        self.net = nn.Identity() if units is None else perceptron(math.prod(width), hidden, units)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(1))[:, None]


def perceptron(width: int, *following: int) -> nn.Sequential:
    """Linear layers of the given widths with ReLU between them."""
    layers: list[nn.Module] = []
    for wide, narrow in zip((width, *following), following, strict=False):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class PerView(nn.Module):
    """One module for each view, taken by the view's name; made by `make(view)`.

    `share` true: one for all views; false: one for each; None: the draws of one view (a_0, a_1, ... of `count`)
    share, other views do not. Views can share if they are `alike` (equal values by view). The name of a view with
    several draws stands for the first of them. Raises `RecipeError`.
    """

    def __init__(
        self,
        widths: Mapping[str, Widths],
        alike: Mapping[str, object],
        make: Callable[[str], nn.Module],
        share: bool | None,
    ):
        super().__init__()
        if share and len(set(alike.values())) > 1:
            listed = ", ".join(f"{view} {sizes}" for view, sizes in alike.items())
            raise RecipeError(f"share_heads: true needs features of equal sizes; these are {listed}")
        self.owner = {view: _owner(view, widths, alike, share) for view in alike}
        for view in dict.fromkeys(self.owner.values()):
            self.add_module(f"of_{view}", make(view))  # "of_", as a view may be called `half` or `type`

    def __getitem__(self, view: str):
        return getattr(self, f"of_{self.owner[named(view, self.owner)]}")


def _owner(view: str, widths: Mapping[str, Widths], alike: Mapping[str, object], share: bool | None) -> str:
    """The view whose module this one uses: the first that it can share with."""
    if share is False:
        return view
    base = {name: width.base or base_by_name(name, widths) for name, width in widths.items()}
    return next(name for name in alike if share or (base[name] == base[view] and alike[name] == alike[view]))


def named(view: str, views: Mapping[str, object]) -> str:
    """The view of that name, or the first draw of it. Raises `RecipeError`."""
    found = first_drawn(view, views)
    if found is None:
        raise RecipeError(f"the objective was built without a view {view!r}; it has {', '.join(views)}")
    return found


def on_present(head: nn.Module, x: Tensor, present: Tensor | None) -> Tensor:
    """head(x) where only rows that are present count in the head's BatchNorm; the other rows come out as zeros."""
    if present is None:
        return head(x)
    rows = rows_of(present, x.device)
    return scattered(head(x.index_select(0, rows)), rows, len(x))


def blank(x: Tensor, present: Tensor | None) -> Tensor:
    """x with zeros in absent rows, so that whatever stands there reaches neither value nor gradient."""
    return x if present is None else x.masked_fill(~send(present, x.device).view(-1, *[1] * (x.dim() - 1)), 0)


def _near_identity(conv: nn.Conv2d) -> nn.Conv2d:
    """Weights uniform in +-0.01 with ones on the diagonal, if there is room to copy the input."""
    if conv.out_channels >= conv.in_channels:
        with torch.no_grad():
            conv.weight.uniform_(-0.01, 0.01)
            conv.weight[:, :, 0, 0].fill_diagonal_(1)
    return conv


def _by_location(x: Tensor) -> Tensor:
    return rearrange(x, "n u h w -> n (h w) u")
