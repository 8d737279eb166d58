"""Segments: which component of a mixture takes which place of an image, drawn over the image.

in   a run whose amdim has a `mixture`, and shards: by default its data.val, else data.train
out  a PNG with a row for each image: the clean view, and for each map its places in the colours of their components

A place goes to the component with the largest infoNCE share of it, among images drawn at random as in training. In
training the vector and the map come from two views of an image, here from the same clean one. A place is drawn as a
tile of an even grid, though the patches that places see overlap.
"""

import math
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch
from torch import Tensor

from mvssl.data import Batch, loader, open_shards
from mvssl.distributed.devices import enough_memory
from mvssl.errors import RecipeError
from mvssl.figures.pixels import is_measured, rgb_pixels, tint
from mvssl.files import PICTURE, check_output, write_picture
from mvssl.objectives import Objective
from mvssl.recipe.draw_names import first_draw_name
from mvssl.runs.load import LoadedRun
from mvssl.views import build_matching_views

BATCH_SIZE = 64  # images that are each other's negatives
CELL = 1.5  # inches


class SegmentedView(NamedTuple):
    """A view of n images: RGB pixels [n, 3, h, w], and for each map, by level, the posterior [n, k, h', w']."""

    view: str
    pixels: Tensor
    posteriors: dict[str, Tensor]


@enough_memory("draw fewer images: --samples N")
def draw_segments(run: LoadedRun, out: Path, *, samples: int = 8, data: list[str] | None = None) -> list[str]:
    """Draw `samples` images of a run to the PNG `out`; return a line on the components of each map.

    `data` are other shards with the same columns. Raises `RecipeError` if no objective of the run has a mixture or no
    view is an image, `DataError` for shards that cannot be read, and `OutputError`.
    """
    objective = _find_mixture(run)
    check_output(out, PICTURE)
    batch = _read_batch(run, max(samples, BATCH_SIZE), data)
    views = [segmented for view in run.views.bases if (segmented := _segment_view(run, objective, view, batch))]
    if not views:
        raise RecipeError(f"segments are drawn over images; the views of this run are {', '.join(run.views.bases)}")
    write_picture(_draw_figure(views, min(samples, len(batch.position))), out, PICTURE.hint)
    return [_describe_map(one.view, level, q) for one in views for level, q in one.posteriors.items()]


def effective_components(components: Tensor, count: int) -> float:
    """Return the number of components in use: e to the entropy of their shares of all places."""
    shares = components.flatten().bincount(minlength=count) / components.numel()
    return torch.special.entr(shares).sum().exp().item()


def _describe_map(view: str, level: str, q: Tensor) -> str:
    count, places = q.shape[1], "x".join(map(str, q.shape[2:]))
    entropy = torch.special.entr(q).sum(dim=1).mean()
    return (
        f"{view}, {level} {places}: {effective_components(q.argmax(dim=1), count):.1f} of {count} components in use; "
        f"their posterior has {entropy:.2f} nats of entropy, at most {math.log(count):.2f}"
    )


def _find_mixture(run: LoadedRun) -> Objective:
    for term in run.model.terms:
        if term.objective.n_components:
            return term.objective
    raise RecipeError(
        "segments need an amdim with a mixture: train with objective={name: amdim, mixture: {components: 8}}"
    )


def _read_batch(run: LoadedRun, count: int, data: list[str] | None) -> Batch:
    table = run.recipe.data
    source = open_shards(data or table.val or table.train, table.folder, table.columns, missing="drop")
    build_matching_views(run.recipe.views, source.shapes, run.views.shapes, str(run.folder))
    return next(iter(loader(source, batch_size=min(count, len(source)), seed=run.recipe.train.seed, stop_step=1)))


def _segment_view(run: LoadedRun, objective: Objective, view: str, batch: Batch) -> SegmentedView | None:
    """Return the segments of one view; None if it is not an image."""
    x = run.views.clean(batch)[view]
    if x.dim() != 4:
        return None
    opened, column = run.views.view(view), batch.columns[run.views.source_of(view)]
    pixels = opened.to_rgb(x)
    if pixels is None:
        pixels = rgb_pixels(x, opened.bands, is_measured(column, view, *opened.bands))
    drawn = first_draw_name(view, run.views.names) or view
    with torch.inference_mode():
        return SegmentedView(view, pixels, objective.segments(view, run.model.encode({drawn: x})[drawn]))


def _build_palette(count: int) -> Tensor:
    """Return `count` colours [count, 3] without gray, in which the image itself is drawn."""
    listed = [colour for number, colour in enumerate(colormaps["tab10"].colors) if number != 7]  # pyright: ignore
    many = colormaps["hsv"](torch.arange(count).numpy() / count)[:, :3]
    return torch.tensor(listed[:count] if count <= len(listed) else many, dtype=torch.float32)


def _draw_figure(views: list[SegmentedView], rows: int) -> Figure:
    count = next(iter(views[0].posteriors.values())).shape[1]
    palette = _build_palette(count)
    columns: list[tuple[str, Tensor]] = []
    for view, pixels, posteriors in views:
        columns.append((view, pixels))
        for level, q in posteriors.items():
            title = f"{view}, {level}\n{'x'.join(map(str, q.shape[2:]))} places"
            columns.append((title, tint(pixels, palette[q.argmax(dim=1)].movedim(-1, 1))))
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0)
    widths = [max(0.5, min(3.0, x.shape[3] / x.shape[2])) for _, x in columns]
    figure = Figure(figsize=(CELL * sum(widths) + 0.2, CELL * rows + 0.9), layout=layout, dpi=110)
    axes = figure.subplots(rows, len(columns), squeeze=False, width_ratios=widths)
    for place, (title, x) in enumerate(columns):
        axes[0, place].set_title(title, fontsize=7)
        for row in range(rows):
            axes[row, place].imshow(x[row].permute(1, 2, 0).numpy(), interpolation="nearest")
            axes[row, place].axis("off")
    places = torch.cat([q.argmax(dim=1).flatten() for one in views for q in one.posteriors.values()])
    shares = places.bincount(minlength=count) / len(places)
    handles = [Patch(color=tuple(colour.tolist()), label=f"{j}: {shares[j]:.0%}") for j, colour in enumerate(palette)]  # pyright: ignore
    fit = max(1, int(CELL * sum(widths) / 0.95))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(count, fit), fontsize=7, frameon=False)
    return figure
