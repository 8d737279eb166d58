"""The contact sheet: the first samples of the run beside every view, drawn by the call that training makes."""

from typing import Any

from matplotlib import rc_context

from mvssl.data import loader
from mvssl.figures.contact_sheet import draw_contact_sheet
from mvssl.reporting.content import Block, Text
from mvssl.reporting.inputs import Inputs
from mvssl.reporting.pictures import encode_figure
from mvssl.text import counted

SAMPLES = 6
GRAY = "#75808c"  # of texts and axes, readable on a light and on a dark page
STYLE: dict[Any, Any] = {"figure.facecolor": "none", "axes.facecolor": "none"}
STYLE |= dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), GRAY)


def show_views(inputs: Inputs) -> list[Block]:
    """Return a row for each of the first samples of the run: its columns, then some draws of each view."""
    run, source = inputs.encoded.get().run, inputs.training.get()
    samples, seed = min(SAMPLES, len(source)), run.recipe.train.seed
    batch = next(iter(loader(source, batch_size=samples, seed=seed, stop_step=1)))
    rates = {name: column.rate for name, column in run.recipe.data.columns.items()}
    with rc_context(STYLE):
        figure = draw_contact_sheet(run.views, batch, seed=seed, rates=rates)
    first = counted(samples, "sample")
    note = f"{first}, the first of the run, as stored and as training draws each view; step 1 uses draw 1."
    text = f"contact sheet: {first}, views {', '.join(run.views.names)}"
    return [Text(note), encode_figure(figure, text)]
