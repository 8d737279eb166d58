"""The contact sheet: samples beside their views, drawn by the call that training makes.

in   a `ViewSet` and a batch
out  a PNG: one row per sample; each column of the batch that a view uses, then every view, several draws of each

Colour views are shown as they would look: L and Y in gray, ab and DbDr as colour at one lightness; the rest as
`mvssl.figures.panels` says. A caption tells how to read what is no plain picture.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from mvssl.figures.panels import Panel, is_measured, panel
from mvssl.files import write_picture
from mvssl.views.view_set import ViewSet

LATER = 1 << 40  # positions between two draws of a sample: as if it came again, far later in the run
CELL = 1.2  # inches
COLUMN = " column"
GAP = 0.06  # of a cell
LETTERS, LINE = 19, 0.135  # of a caption: letters to the inch, inches to the line
WIDEST = 16.0  # cells for all views, beyond which each is drawn less often


def contact_sheet(
    viewset: ViewSet,
    batch: Any,
    out: Path,
    *,
    seed: int = 0,
    draws: int | None = None,
    rates: Mapping[str, float | None] | None = None,
    device: torch.device | str = "cpu",
) -> Path:
    """Draw the samples of `batch`, a row each, and each view `draws` times, to the PNG `out`. Raises `OutputError`.

    The first draw is the very one that training with `seed` sees; views with a count are drawn once each. Default are
    three draws, or fewer where that would be too wide. `rates` are samples per second of columns, for the time axes.
    """
    return write_picture(draw_contact_sheet(viewset, batch, seed=seed, draws=draws, rates=rates, device=device), out)


def draw_contact_sheet(
    viewset: ViewSet,
    batch: Any,
    *,
    seed: int = 0,
    draws: int | None = None,
    rates: Mapping[str, float | None] | None = None,
    device: torch.device | str = "cpu",
) -> Figure:
    groups = [*_columns(viewset, batch, rates or {}), *_views(viewset, batch, rates or {}, seed, draws, device)]
    panels = [shown for group in groups for shown in (*group, None)][:-1]  # a narrow gap after each group
    return _draw(panels, len(batch.position))


def column_sheet(
    viewset: ViewSet, batch: Any, out: Path, notes: list[str], *, rates: Mapping[str, float | None] | None = None
) -> Path:
    """Draw the columns of some samples side by side, a note on each row, to the PNG `out`. Raises `OutputError`."""
    panels = [shown for group in _columns(viewset, batch, rates or {}) for shown in (*group, None)][:-1]
    return write_picture(_draw(panels, len(batch.position), notes), out)


def _draw(panels: Sequence[Panel | None], rows: int, notes: list[str] | None = None) -> Figure:
    widths = [shown.wide if shown else GAP for shown in panels]
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0)
    beside = 1.0 if notes else 0.0  # inches
    wide = CELL * sum(widths) + 0.2 + beside
    caption = [line for told in _caption(panels) for line in textwrap.wrap(told, int(wide * LETTERS))]
    tall = CELL * max(shown.tall for shown in panels if shown)
    high = tall * rows + 0.6 + LINE * len(caption)
    figure = Figure(figsize=(wide, high), layout=layout, dpi=110)
    axes = figure.subplots(rows, len(panels), squeeze=False, width_ratios=widths)
    for place, shown in enumerate(panels):
        for row in range(rows):
            if shown:
                shown.draw(axes[row, place], row, row == rows - 1)
            else:
                axes[row, place].set_visible(False)
        if shown:
            axes[0, place].set_title(shown.title, fontsize=7)
    figure.supxlabel("\n".join(caption), x=0.05 / wide, ha="left", ma="left", fontsize=7)
    for row, note in enumerate(notes or []):
        axes[row, 0].set_ylabel(note, fontsize=6, rotation=0, ha="right", va="center")
    return figure


def _caption(panels: Sequence[Panel | None]) -> Iterator[str]:
    """A line for each way of reading, with the columns and views that are read so and what their colours span."""
    lines: dict[str, dict[str, None]] = {}  # dicts, being sets in order
    for shown in panels:
        if shown and shown.note and shown.label:
            lines.setdefault(shown.note, {})[shown.label + f" ({shown.span})" * bool(shown.span)] = None
    for note, whose in lines.items():
        alike = {f"{name}{COLUMN}" for name in whose}  # read as the view of that name
        yield f"{', '.join(name for name in whose if name not in alike)}: {note}"


def _columns(viewset: ViewSet, batch: Any, rates: Mapping[str, float | None]) -> Iterator[list[Panel]]:
    for name in dict.fromkeys(viewset.source_of(view) for view in viewset.names):
        view = next(viewset.view(view) for view in viewset.names if viewset.source_of(view) == name)
        column = batch.columns[name]
        names, channels = view.column_bands, view.with_channels(column)
        picture = channels.dim() == 4
        measured = is_measured(column, name, *names)
        number = measured and (column.dim() == 3 or column.shape[1] == 1)  # shown with its span, in stored units
        x = channels if column.is_floating_point() or number or not picture else channels / 255
        made = panel(f"{name}\n{COLUMN.strip()}", x, names=names, rate=rates.get(name), measured=measured)
        yield [made._replace(label=name + COLUMN, present=batch.present.get(name))]


def _views(
    viewset: ViewSet,
    batch: Any,
    rates: Mapping[str, float | None],
    seed: int,
    draws: int | None,
    device: torch.device | str,
) -> Iterator[list[Panel]]:
    def drawn(k: int) -> dict[str, Panel]:
        seen = viewset(batch._replace(position=batch.position + k * LATER), seed, device)
        return {name: _view(viewset, batch, name, f"draw {k + 1}", x, rates) for name, x in seen.items()}

    times = [drawn(0)]
    wide = sum(panel.wide for panel in times[0].values())
    times += [drawn(k) for k in range(1, draws or max(1, min(3, int(WIDEST / wide))))]
    for name in viewset.names:
        shown = times if name in viewset.bases else times[:1]
        yield [shown[0][name]._replace(label=name), *(panels[name] for panels in shown[1:])]


def _view(viewset: ViewSet, batch: Any, name: str, draw: str, x: Tensor, rates: Mapping[str, float | None]) -> Panel:
    view, source = viewset.view(name), viewset.source_of(name)
    column, names = batch.columns[source], view.bands
    geometry = viewset.view(viewset.leader_of(name)).geometry
    cropped = geometry is not None and geometry.crop is not None
    stretched = cropped or x.shape[-1] != column.shape[-1]  # its time is no longer the column's
    measured = is_measured(column, name, source, *names)
    rate = None if stretched else rates.get(source)
    made = panel(f"{name}\n{draw}", x, view, names=names, rate=rate, measured=measured)
    return made._replace(present=batch.present.get(source))
