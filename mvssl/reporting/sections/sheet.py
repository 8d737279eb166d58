"""The contact sheet: samples of the run's first batch beside every view, drawn by the call that training makes."""

import itertools
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from mvssl.data import ShardSource, loader
from mvssl.figures.contact_sheet import NEXT_DRAW
from mvssl.reporting import picture
from mvssl.reporting.html import Html, el
from mvssl.reporting.sections import Section
from mvssl.runs.load import LoadedRun
from mvssl.text import counted
from mvssl.views import ViewSet

STORED = "stored"
ROWS, COLUMNS = 6, 12  # samples, and about how many pictures of each


def sheet(run: LoadedRun, source: ShardSource) -> Section:
    """A grid: a row per sample, its columns first, then draws of each view."""
    rows = min(ROWS, len(source))
    batch = next(iter(loader(source, batch_size=rows, seed=run.recipe.train.seed, stop_step=1)))
    panels = list(_panels(run.views, batch, run.recipe.train.seed))
    head = [el("b", title, el("small", draw)) for title, draw, _ in panels]
    cells = []
    for row, (title, draw, shown) in itertools.product(range(rows), panels):
        there = batch.present.get(title if title in batch.columns and draw == STORED else run.views.source_of(title))
        absent = there is not None and not there[row]
        drawn = el("small", "absent") if absent else picture.cell(shown[row], f"sample {row + 1}: {title}, {draw}")
        cells.append(drawn)
    grid = el("div", head, cells, class_="sheet", style=f"--columns: {len(panels)}")
    first = counted(rows, "sample")
    text = f"{first}, the first of the run, as stored and as training draws each view; draw 1 is what step 1 saw."
    told = {name: run.views.view(name).shows for name in run.views.names}
    text += "".join(f" {name}: {shows}." for name, shows in told.items() if shows)
    return Section("views", "Views", el("div", el("p", text, class_="note"), _scrolling(grid)))


def _scrolling(content: Html) -> Html:
    return el("div", content, class_="scroll", tabindex=0, role="region", aria_label="contact sheet")


def _panels(views: ViewSet, batch: Any, seed: int) -> Iterator[tuple[str, str, Tensor]]:
    """(title, which draw, pictures), as many draws of each view as the page is wide."""
    columns = list(dict.fromkeys(views.source_of(name) for name in views.names))
    draws = min(max((COLUMNS - len(columns)) // len(views.names), 1), 3)
    for name in columns:
        yield name, STORED, picture.stored(views, name, batch.columns[name])
    times = [views(batch._replace(position=batch.position + k * NEXT_DRAW), seed) for k in range(draws)]
    for k in range(draws):  # the first of every view, then the second: on a phone the first columns show all sensors
        for name in views.names:
            if k and name not in views.bases:
                continue  # a view with a count is drawn so often anyway
            yield name, f"draw {k + 1}", picture.look(views, name, times[k][name], batch.columns[views.source_of(name)])
