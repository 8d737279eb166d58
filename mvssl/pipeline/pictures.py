"""Pictures of a run: the views of its first batch, and its outliers, which are likely mispaired samples.

in   a recipe, or a trainer after its last step
out  views.png; mispaired.png, with a row for each of the first outliers and their columns side by side
"""

from collections.abc import Mapping
from pathlib import Path

from mvssl.data import loader, open_shards
from mvssl.distributed import collectives
from mvssl.files import write_picture
from mvssl.monitoring.outliers import tracked_outliers, write_errors_as_warnings
from mvssl.recipe import Column, Recipe
from mvssl.training.preparation import pack_once
from mvssl.training.step import Trainer
from mvssl.views import build_views, resolve_statistics

DRAWN = 12  # outliers


def draw_views(recipe: Recipe, out: Path, samples: int = 8) -> Path:
    """Draw the views of the first batch of the run to `out`, with the code of training. Return `out`."""
    from mvssl.figures.contact_sheet import draw_contact_sheet  # loads matplotlib

    table = recipe.data
    if table.pack:
        pack_once(table)
    # not `open_training_shards`, which every process must call: after a run the main process works alone
    source = open_shards(table.train, table.folder, table.columns, missing=table.missing)
    views = build_views(resolve_statistics(recipe.views, source.shapes, source), source.shapes)
    rows = min(samples, len(source))
    batch = next(iter(loader(source, batch_size=rows, seed=recipe.train.seed, stop_step=1)))
    return write_picture(draw_contact_sheet(views, batch, seed=recipe.train.seed, rates=_rates(table.columns)), out)


def draw_outliers(trainer: Trainer, folder: Path) -> None:
    """Draw the first outliers to mispaired.png on the main process. Unreadable samples are left out."""
    if trainer.tracker is None or collectives.rank():
        return
    source = trainer.source
    with write_errors_as_warnings():
        listed = {outlier.index: outlier for outlier in tracked_outliers(trainer.tracker).listed[:DRAWN]}
        batch = source.read_batch(listed)
        drawn = [listed[index] for index in batch.index.tolist()]
        if not drawn:
            return
        from mvssl.figures.contact_sheet import draw_column_sheet  # loads matplotlib

        notes = [f"{source.key(each.index)}\n{each.views}\n{each.score:.0%} ahead" for each in drawn]
        sheet = draw_column_sheet(trainer.views, batch, notes, rates=_rates(source.columns))
        write_picture(sheet, folder / "mispaired.png")


def _rates(columns: Mapping[str, Column]) -> dict[str, float | None]:
    return {name: column.rate for name, column in columns.items()}
