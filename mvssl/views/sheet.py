"""The contact sheet: samples beside their views, drawn by the call that training makes.

in   a `ViewSet` and a batch
out  a PNG: one row per sample; each column of the batch that a view uses, then every view, several draws of each

Colour views are shown as they would look: L and Y in gray, ab and DbDr as colour at one lightness. A single band has a
colour map, many bands a false colour of three of them, a vector bars.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from mvssl.errors import OutputError
from mvssl.views.viewset import ViewSet

LATER = 1 << 40  # positions between two draws of a sample: as if it came again, far later in the run
CELL = 1.2  # inches

Panel = tuple[str, str, Tensor]  # heading, draw, [n, 3, h, w] in [0, 1] or vectors [n, d]


def contact_sheet(
    viewset: ViewSet, batch: Any, out: Path, *, seed: int = 0, draws: int = 3, device: torch.device | str = "cpu"
) -> Path:
    """Draw the samples of `batch`, a row each, and each view `draws` times, to the PNG `out`. Raises `OutputError`.

    The first draw is the very one that training with `seed` sees; views with a count are drawn once each.
    """
    groups = [*_columns(viewset, batch), *_views(viewset, batch, seed, draws, device)]
    panels = [panel for group in groups for panel in (*group, None)][:-1]  # a narrow gap after each group
    rows, widths = len(batch.position), [1.0 if panel else 0.06 for panel in panels]
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0)
    figure = Figure(figsize=(CELL * sum(widths) + 0.2, CELL * rows + 0.6), layout=layout, dpi=110)
    axes = figure.subplots(rows, len(panels), squeeze=False, width_ratios=widths)
    for place, panel in enumerate(panels):
        for row in range(rows):
            _show(axes[row, place], panel[2][row] if panel else None)
        if panel:
            axes[0, place].set_title(f"{panel[0]}\n{panel[1]}", fontsize=7)
    try:
        figure.savefig(out, format="png")
    except OSError as error:
        raise OutputError(f"contact sheet {out} cannot be written: {error.strerror or error}") from None
    return Path(out)


def _columns(viewset: ViewSet, batch: Any) -> Iterator[list[Panel]]:
    for name in dict.fromkeys(viewset.source_of(view) for view in viewset.names):
        column = batch.columns[name]
        x = column.float() / (1 if column.is_floating_point() else 255)
        yield [(name, "column", colours(x) if x.dim() == 4 else x.flatten(1))]


def _views(viewset: ViewSet, batch: Any, seed: int, draws: int, device: torch.device | str) -> Iterator[list[Panel]]:
    times = [viewset(batch._replace(position=batch.position + k * LATER), seed, device) for k in range(draws)]
    for name in viewset.names:
        shown = range(draws if name in viewset.bases else 1)
        yield [(name, f"draw {k + 1}", _shown(viewset.view(name), times[k][name]).cpu()) for k in shown]


def _shown(view: Any, x: Tensor) -> Tensor:
    """A view's output as it would look where the view knows, else in false colour; vectors as they are."""
    shown = view.to_rgb(x) if hasattr(view, "to_rgb") else None
    return shown if shown is not None else colours(x) if x.dim() == 4 else x.flatten(1)


def colours(x: Tensor) -> Tensor:
    """Any images [n, c, h, w] as [n, 3, h, w] in [0, 1]: three bands as they are where they fit, else stretched."""
    if x.shape[1] == 3 and x.amin() >= 0 and x.amax() <= 1:
        return x
    bands = x if x.shape[1] <= 3 else x[:, [x.shape[1] - 1, x.shape[1] // 2, 0]]
    bands = bands[:, :1] if x.shape[1] == 2 else bands
    stretched = torch.stack([_stretch(band) for band in bands.unbind(1)], 1)
    if stretched.shape[1] == 3:
        return stretched
    table = torch.tensor(colormaps["magma"].resampled(256)(range(256)), dtype=torch.float32)[:, :3]
    return table[(stretched[:, 0] * 255).round().long().cpu()].permute(0, 3, 1, 2)


def _stretch(band: Tensor) -> Tensor:
    """One band over the batch to [0, 1], its 1st to its 99th percentile; what is not finite becomes 0."""
    finite = band[band.isfinite()][:1_000_000]
    if not len(finite):
        return torch.zeros_like(band)
    low, high = finite.quantile(0.01), finite.quantile(0.99)
    return ((band - low) / (high - low).clamp(min=1e-12)).nan_to_num(0.0).clamp(0, 1)


def _show(axis: Axes, cell: Tensor | None) -> None:
    axis.set(xticks=[], yticks=[], anchor="N")
    axis.spines[:].set_visible(False)
    if cell is None:
        axis.set_visible(False)
    elif cell.dim() == 3:
        axis.imshow(cell.permute(1, 2, 0).numpy(), interpolation="nearest")
    else:
        values = cell[:64].nan_to_num(0.0)
        extreme = max(float(values.abs().amax()), 1e-6)
        axis.bar(range(len(values)), values.tolist(), width=1.0, color="0.35")
        axis.set_ylim(-extreme, extreme)
        axis.set_box_aspect(1)
