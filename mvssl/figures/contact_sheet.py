"""Contact sheets: samples beside their views, as training draws them.

in   a `ViewSet` and a batch
out  a matplotlib figure, a row for each sample: the columns that views use, then every view, several draws of each

A caption says how to read every panel that is not a plain picture.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from mvssl.data import Batch
from mvssl.figures.panels import COLUMN, Panel, column_panel, view_panel
from mvssl.views import ViewSet

NEXT_DRAW = 1 << 40  # distance in positions between two draws of a sample, as if it came again far later in the run
CELL = 1.2  # inches
GAP = 0.06  # of a cell, between groups of panels
LETTERS_PER_INCH, LINE_HEIGHT = 19, 0.135  # of the caption; inches
MAX_WIDTH = 16.0  # cells for all views; where more are needed, each view is drawn less often
Rates = Mapping[str, float | None]


def draw_contact_sheet(
    views: ViewSet,
    batch: Batch,
    *,
    seed: int = 0,
    draws: int | None = None,
    rates: Rates | None = None,
    device: torch.device | str = "cpu",
) -> Figure:
    """Draw the samples of `batch`, a row each, and each view `draws` times.

    The first draw is what training with `seed` sees. A view with a count is drawn once under each of its names. The
    default is three draws, or fewer if the sheet would be too wide. `rates` are samples per second of columns.
    """
    groups = [*_column_groups(views, batch, rates or {}), *_view_groups(views, batch, rates or {}, seed, draws, device)]
    return _draw_sheet(groups, len(batch.position))


def draw_column_sheet(views: ViewSet, batch: Batch, notes: Sequence[str], *, rates: Rates | None = None) -> Figure:
    """Draw only the columns of the samples of `batch`, a row each, with a note at the left of each row."""
    return _draw_sheet(list(_column_groups(views, batch, rates or {})), len(batch.position), notes)


def _column_groups(views: ViewSet, batch: Batch, rates: Rates) -> Iterator[list[Panel]]:
    for column in dict.fromkeys(views.source_of(name) for name in views.names):
        yield [column_panel(views, column, batch, rates.get(column))]


def _view_groups(
    views: ViewSet, batch: Batch, rates: Rates, seed: int, draws: int | None, device: torch.device | str
) -> Iterator[list[Panel]]:
    """All draws of each view, side by side."""

    def draw(k: int) -> dict[str, Panel]:
        drawn = views(batch._replace(position=batch.position + k * NEXT_DRAW), seed, device)
        return {
            name: view_panel(views, name, x, batch, draw=f"draw {k + 1}", rate=rates.get(views.source_of(name)))
            for name, x in drawn.items()
        }

    panels = [draw(0)]
    width = sum(panel.width for panel in panels[0].values())
    panels += [draw(k) for k in range(1, draws or max(1, min(3, int(MAX_WIDTH / width))))]
    for name in views.names:
        shown = panels if name in views.bases else panels[:1]
        yield [shown[0][name]._replace(label=name), *(by_name[name] for by_name in shown[1:])]


def _draw_sheet(groups: Sequence[Sequence[Panel]], rows: int, notes: Sequence[str] = ()) -> Figure:
    places = [panel for group in groups for panel in (*group, None)][:-1]  # None is a gap
    panels = [panel for panel in places if panel]
    widths = [panel.width if panel else GAP for panel in places]
    width = CELL * sum(widths) + 0.2 + (1.0 if notes else 0.0)
    caption = [part for line in _caption_lines(panels) for part in textwrap.wrap(line, int(width * LETTERS_PER_INCH))]
    height = CELL * max(panel.height for panel in panels) * rows + 0.6 + LINE_HEIGHT * len(caption)
    layout = ConstrainedLayoutEngine(w_pad=0.01, h_pad=0.01, wspace=0.0, hspace=0.0)
    figure = Figure(figsize=(width, height), layout=layout, dpi=110)
    axes = figure.subplots(rows, len(places), squeeze=False, width_ratios=widths)
    for place, panel in enumerate(places):
        for row in range(rows):
            if panel:
                panel.draw(axes[row, place], row, row == rows - 1)
            else:
                axes[row, place].set_visible(False)
        if panel:
            axes[0, place].set_title(panel.title, fontsize=7)
    figure.supxlabel("\n".join(caption), x=0.05 / width, ha="left", ma="left", fontsize=7)
    for row, note in enumerate(notes):
        axes[row, 0].set_ylabel(note, fontsize=6, rotation=0, ha="right", va="center")
    return figure


def _caption_lines(panels: Sequence[Panel]) -> Iterator[str]:
    """A line for each note: the columns and views that it explains, with the range of their colours."""
    lines: dict[str, list[str]] = {}
    for panel in panels:
        if panel.note and panel.label:
            label = panel.label + f" ({panel.span})" * bool(panel.span)
            labels = lines.setdefault(panel.note, [])
            labels += [label] * (label not in labels)
    for note, labels in lines.items():
        same = {f"{label}{COLUMN}" for label in labels}  # a column with the name of a view is named once
        yield f"{', '.join(label for label in labels if label not in same)}: {note}"
