"""Segments: which component of a mixture takes which place of an image, drawn over the image.

in   a run whose amdim has a `mixture`, and its shards: data.val, else data.train
out  a PNG, a row for each image: the clean view, and for each map its places in the colours of their components

A place goes to the component with the largest infoNCE share of it, among images drawn at random as in training; there
the vector and the map come from two views of an image, here from the same clean one. A place is drawn as a tile of an
even grid, though the patches that places see overlap.
"""

from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from torch import Tensor

from mvssl.data import Batch, loader, open_shards
from mvssl.errors import OutputError, RecipeError
from mvssl.names import first_drawn
from mvssl.objectives import AMDIM
from mvssl.views.panels import colours, is_measured

TOGETHER = 64  # images that are each other's negatives
TINT = 0.55  # of a component's colour; the rest is the image in gray
CELL = 1.5  # inches


class Shared(NamedTuple):
    """A view of some images as they look, [n, 3, h, w], and who takes the places of each map, [n, h', w'] by level."""

    view: str
    look: Tensor
    taken: dict[str, Tensor]


def draw_segments(run: Any, out: Path, *, samples: int = 8) -> list[str]:
    """Draw `samples` images of a loaded run to the PNG `out`; says for each map how many components are in use.

    Raises `RecipeError` where no objective of the run has a mixture, or none of its views is an image, and
    `OutputError`.
    """
    objective = _mixed(run)
    batch = _some(run, max(samples, TOGETHER))
    shown = [shared for view in run.views.bases for shared in _share(run, objective, view, batch)]
    if not shown:
        raise RecipeError(f"segments are drawn over images; the views of this run are {', '.join(run.views.bases)}")
    count = objective.mixture.components  # pyright: ignore[reportOptionalMemberAccess]
    figure = _figure(shown, min(samples, len(batch.position)), count)
    try:
        figure.savefig(out, format="png")
    except OSError as error:
        raise OutputError(f"picture {out} cannot be written: {error.strerror or error}") from None
    return [
        f"{shared.view}, {level} {'x'.join(map(str, taken.shape[1:]))}: {used(taken, count):.1f} of {count} components"
        for shared in shown
        for level, taken in shared.taken.items()
    ]


def used(taken: Tensor, count: int) -> float:
    """The number of components in use: e to the entropy of their shares of all places."""
    shares = taken.flatten().bincount(minlength=count) / taken.numel()
    return torch.special.entr(shares).sum().exp().item()


def tinted(look: Tensor, taken: Tensor, palette: Tensor) -> Tensor:
    """Images [n, 3, h, w] in gray under the colours of the components that take each place [n, h', w']."""
    gray = look.mean(dim=1, keepdim=True)
    colour = F.interpolate(palette[taken].movedim(-1, 1), size=look.shape[2:], mode="nearest")
    return TINT * colour + (1 - TINT) * gray


def _mixed(run: Any) -> AMDIM:
    for objective in run.model.objective:
        if isinstance(objective, AMDIM) and objective.mixture is not None:
            return objective
    raise RecipeError(
        "segments need an amdim with a mixture: train with objective={name: amdim, mixture: {components: 8}}"
    )


def _some(run: Any, count: int) -> Batch:
    table = run.recipe.data
    source = open_shards(table.val or table.train, table.folder, table.columns, missing="drop")
    return next(iter(loader(source, batch_size=min(count, len(source)), seed=run.recipe.train.seed, stop_step=1)))


def _share(run: Any, objective: AMDIM, view: str, batch: Batch) -> list[Shared]:
    """One view, or nothing where it is no image."""
    x = run.views.clean(batch)[view]
    if x.dim() != 4:
        return []
    drawn = first_drawn(view, run.views.names)
    with torch.inference_mode():
        shares = objective.segments(view, run.model.encode({drawn: x})[drawn])
    made, column = run.views.view(view), batch.columns[run.views.source_of(view)]
    names = getattr(made, "bands", ())
    look = made.to_rgb(x) if hasattr(made, "to_rgb") else None
    if look is None:
        look = colours(x, names, is_measured(column, view, *names))
    return [Shared(view, look, {level: q.argmax(dim=1) for level, q in shares.items()})]


def _figure(shown: list[Shared], rows: int, count: int) -> Figure:
    palette = torch.tensor(colormaps["tab10" if count <= 10 else "tab20"].colors)[:, :3].float()  # pyright: ignore
    palette = palette[torch.arange(count) % len(palette)]
    columns: list[tuple[str, Tensor]] = []
    for view, look, taken in shown:
        columns.append((view, look))
        columns += [
            (f"{view}, {level}\n{'x'.join(map(str, places.shape[1:]))} places", tinted(look, places, palette))
            for level, places in taken.items()
        ]
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0)
    wide = [max(0.5, min(3.0, x.shape[3] / x.shape[2])) for _, x in columns]
    figure = Figure(figsize=(CELL * sum(wide) + 0.2, CELL * rows + 0.9), layout=layout, dpi=110)
    axes = figure.subplots(rows, len(columns), squeeze=False, width_ratios=wide)
    for place, (title, x) in enumerate(columns):
        axes[0, place].set_title(title, fontsize=7)
        for row in range(rows):
            axes[row, place].imshow(x[row].permute(1, 2, 0).numpy(), interpolation="nearest")
            axes[row, place].set(xticks=[], yticks=[])
            axes[row, place].spines[:].set_visible(False)
    every = torch.cat([taken.flatten() for shared in shown for taken in shared.taken.values()])
    share = every.bincount(minlength=count) / len(every)
    handles = [Patch(color=tuple(colour.tolist()), label=f"{j}: {share[j]:.0%}") for j, colour in enumerate(palette)]  # pyright: ignore
    figure.legend(handles=handles, loc="outside lower center", ncols=min(count, 8), fontsize=7, frameon=False)
    return figure
