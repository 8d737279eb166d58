"""Segments: which component of a mixture takes which place of an image, drawn over the image.

in   a run whose amdim has a `mixture`, and shards: by default its data.val, else data.train
out  a PNG, a row for each image: the clean view, and for each map its places in the colours of their components

A place goes to the component with the largest infoNCE share of it, among images drawn at random as in training; there
the vector and the map come from two views of an image, here from the same clean one. A place is drawn as a tile of an
even grid, though the patches that places see overlap.
"""

import math
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
from mvssl.distributed.devices import enough_memory
from mvssl.errors import RecipeError
from mvssl.figures.pixels import is_measured, rgb_pixels
from mvssl.files import PICTURE, check_output, write_picture
from mvssl.objectives import Objective
from mvssl.views import build_alike
from mvssl.views.naming import first_drawn

TOGETHER = 64  # images that are each other's negatives
TINT = 0.55  # of a component's colour; the rest is the image in gray
CELL = 1.5  # inches


class Shared(NamedTuple):
    """A view of some images as they look, [n, 3, h, w], and by level q of each map's places, [n, k, h', w']."""

    view: str
    look: Tensor
    posterior: dict[str, Tensor]


@enough_memory("draw fewer images: --samples N")
def draw_segments(run: Any, out: Path, *, samples: int = 8, data: list[str] | None = None) -> list[str]:
    """Draw `samples` images of a loaded run to the PNG `out`; says for each map who is in use, and how surely.

    `data` are other shards with the same columns. Raises `RecipeError` where no objective of the run has a mixture, or
    none of its views is an image, `DataError` for shards that cannot be read, and `OutputError`.
    """
    objective = _mixed(run)
    check_output(out, PICTURE)
    batch = _some(run, max(samples, TOGETHER), data)
    shown = [shared for view in run.views.bases for shared in _share(run, objective, view, batch)]
    if not shown:
        raise RecipeError(f"segments are drawn over images; the views of this run are {', '.join(run.views.bases)}")
    figure = _figure(shown, min(samples, len(batch.position)))
    write_picture(figure, out, PICTURE.hint)
    return [_told(shared.view, level, q) for shared in shown for level, q in shared.posterior.items()]


def _told(view: str, level: str, q: Tensor) -> str:
    count, places = q.shape[1], "x".join(map(str, q.shape[2:]))
    entropy = torch.special.entr(q).sum(dim=1).mean()
    return (
        f"{view}, {level} {places}: {used(q.argmax(dim=1), count):.1f} of {count} components in use; "
        f"their posterior has {entropy:.2f} nats of entropy, {math.log(count):.2f} would be no preference at all"
    )


def used(taken: Tensor, count: int) -> float:
    """The number of components in use: e to the entropy of their shares of all places."""
    return torch.special.entr(_shares(taken, count)).sum().exp().item()


def _shares(taken: Tensor, count: int) -> Tensor:
    return taken.flatten().bincount(minlength=count) / taken.numel()


def tinted(look: Tensor, taken: Tensor, palette: Tensor) -> Tensor:
    """Images [n, 3, h, w] in gray under the colours of the components that take each place [n, h', w']."""
    gray = look.mean(dim=1, keepdim=True)
    colour = F.interpolate(palette[taken].movedim(-1, 1), size=look.shape[2:], mode="nearest")
    return TINT * colour + (1 - TINT) * gray


def _mixed(run: Any) -> Objective:
    for term in run.model.terms:
        if term.objective.n_components:
            return term.objective
    raise RecipeError(
        "segments need an amdim with a mixture: train with objective={name: amdim, mixture: {components: 8}}"
    )


def _some(run: Any, count: int, data: list[str] | None) -> Batch:
    table = run.recipe.data
    source = open_shards(data or table.val or table.train, table.folder, table.columns, missing="drop")
    build_alike(run.recipe.views, source.shapes, run.views.shapes, str(run.folder))
    return next(iter(loader(source, batch_size=min(count, len(source)), seed=run.recipe.train.seed, stop_step=1)))


def _share(run: Any, objective: Objective, view: str, batch: Batch) -> list[Shared]:
    """One view, or nothing where it is no image."""
    x = run.views.clean(batch)[view]
    if x.dim() != 4:
        return []
    drawn = first_drawn(view, run.views.names)
    with torch.inference_mode():
        posterior = objective.segments(view, run.model.encode({drawn: x})[drawn])
    made, column = run.views.view(view), batch.columns[run.views.source_of(view)]
    names = made.bands
    look = made.to_rgb(x)
    if look is None:
        look = rgb_pixels(x, names, is_measured(column, view, *names))
    return [Shared(view, look, posterior)]


def _palette(count: int) -> Tensor:
    """[count, 3]; none is gray, in which the image itself is drawn."""
    listed = [colour for number, colour in enumerate(colormaps["tab10"].colors) if number != 7]  # pyright: ignore
    many = colormaps["hsv"](torch.arange(count).numpy() / count)[:, :3]
    return torch.tensor(listed[:count] if count <= len(listed) else many, dtype=torch.float32)


def _figure(shown: list[Shared], rows: int) -> Figure:
    count = next(iter(shown[0].posterior.values())).shape[1]
    palette = _palette(count)
    columns: list[tuple[str, Tensor]] = []
    for view, look, posterior in shown:
        columns.append((view, look))
        columns += [
            (f"{view}, {level}\n{'x'.join(map(str, q.shape[2:]))} places", tinted(look, q.argmax(dim=1), palette))
            for level, q in posterior.items()
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
    every = _shares(torch.cat([q.argmax(dim=1).flatten() for s in shown for q in s.posterior.values()]), count)
    handles = [Patch(color=tuple(colour.tolist()), label=f"{j}: {every[j]:.0%}") for j, colour in enumerate(palette)]  # pyright: ignore
    fit = max(1, int(CELL * sum(wide) / 0.95))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(count, fit), fontsize=7, frameon=False)
    return figure
