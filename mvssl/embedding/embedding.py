"""Embed: write the features of each sample of some shards once, on any number of processes.

in   a subject as for `mvssl evaluate`, shards (default data.val, else data.train), a path that does not exist
out  the file, written by the main process, and an `Embedded` with its contents

All processes compute features, as in an evaluation, and keep them in the cache (`mvssl.evaluation.features`). Earlier
features are read from there. One process writes the file, so that its bytes do not depend on the number of processes.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mvssl.data import ShardSource, pattern_list
from mvssl.distributed import collectives
from mvssl.distributed.devices import arithmetic, enough_memory
from mvssl.embedding.formats import writer_of
from mvssl.embedding.place import check_new, renamed_at_end
from mvssl.embedding.summary import Embedded
from mvssl.embedding.table import Table, check_names
from mvssl.errors import RecipeError
from mvssl.evaluation.features.extraction import LESS, Collected, collect
from mvssl.evaluation.features.layers import LABELS, EncoderUnderTest, FeatureSpec, compute_features, describe_features
from mvssl.evaluation.features.splits import Patterns, open_labelled, refuse_pictures
from mvssl.evaluation.opening import OVERRIDES, open_subject
from mvssl.evaluation.subject import Subject, describe_origin, encoders_under_test
from mvssl.recipe import Recipe, View
from mvssl.recipe.messages import nearest
from mvssl.runs.load import LoadedRun
from mvssl.runs.versions import versions
from mvssl.views import ViewSet, build_matching_views

CHANGES = (*OVERRIDES, "data.columns.", "data.missing=")  # keys of a run's recipe that may be overridden


@enough_memory(LESS)
@arithmetic("fp32")  # except for passes through the encoder, which use `evaluate.precision`
def embed(
    subject: str | Path | LoadedRun | Subject,
    out: str | Path,
    *,
    data: Patterns = None,
    recipe: str | Path | None = None,
    overrides: Iterable[str] = (),
    weights: str | None = None,
    views: Iterable[str] | None = None,
    layer: str | int | None = None,
    half: bool = False,
    checkpoint: str | int = "last",
    trust: Iterable[str] = (),
    batch_size: int = 256,
) -> Embedded | None:
    """Write the features of every sample of `data` at `layer` for each of `views`, and return what was written.

    The subject is a run folder, an export folder, `timm:NAME`, a `LoadedRun` or an open `Subject`. It is opened with
    `recipe`, `overrides`, `weights`, `checkpoint` and `trust`: see `mvssl.evaluation.open_subject`. For a run,
    `overrides` may change the data that are read: `data.root`, `data.columns`, `data.missing` and some others.

    `out` determines the format: FILE.npz, FILE.parquet, or a folder of shards. Under a launcher every process must call
    the function; the main one writes, and the others get None. Only columns that the views need are read.
    `data.missing` of the recipe decides about samples that lack one. Samples without a label are kept.

    Raise `RecipeError` for an unknown suffix, view or layer, `DataError` if the data do not fit or no sample can be
    used, `OutputError` if `out` exists, and `StorageError` if writing fails.
    """
    device, out = collectives.join(), Path(out)
    views = None if views is None else list(views)
    subject = open_subject(
        subject, recipe=recipe, overrides=overrides, weights=weights, views=views, trust=trust, checkpoint=checkpoint,
        changes=CHANGES,
    )  # fmt: skip
    used, tables = subject.recipe, _view_tables(subject, views)
    layer = str(used.evaluate.layer if layer is None else layer)
    write = writer_of(out, list(tables))
    collectives.run_on_main(lambda: check_new(out))
    patterns = pattern_list(data or used.data.val or used.data.train)
    source = collectives.run_main_first(lambda: _open_source(used, tables, patterns))
    view_set = build_matching_views(tables, source.shapes, subject.views.shapes, subject.name)
    with encoders_under_test(subject, device, baselines=False) as (own,):
        found = _collect(source, own, layer, view_set, tables, used, device, batch_size)
    if found is None:
        return None
    columns = {view: table.source for view, table in tables.items()}
    table = Table(source, columns, *found.entries, half=half)
    about = _describe(subject, own, layer, table, patterns)
    with renamed_at_end(out) as beside:
        write(table, beside, about)
    shape = table.label and table.label[0]
    return Embedded(out, len(table), table.widths, table.dtype.name, shape, found.computed, about)


def _view_tables(subject: Subject, views: Iterable[str] | None) -> dict[str, View]:
    """Return the tables of the views to embed, without `geometry`, because no crop is drawn. Raise `RecipeError`."""
    known = subject.recipe.views
    names = list(dict.fromkeys(views or known))
    for name in names:
        if name not in known:
            raise RecipeError(f"no view {name!r}{nearest(name, known)}")
    check_names(names)
    return {name: known[name].model_copy(update={"geometry": None}) for name in names}


def _open_source(recipe: Recipe, tables: Mapping[str, View], patterns: list[str]) -> ShardSource:
    """Return the samples with the columns that the views need, and with labels if there are any."""
    needed = {table.source for table in tables.values()}
    columns = {name: column for name, column in recipe.data.columns.items() if name in needed}
    source = open_labelled(recipe.data, patterns, columns, keep_unlabelled=True, missing=recipe.data.missing)
    refuse_pictures(source)
    return source


def _collect(
    source: ShardSource,
    own: EncoderUnderTest,
    layer: str,
    view_set: ViewSet,
    tables: Mapping[str, View],
    recipe: Recipe,
    device: Any,
    batch_size: int,
) -> Collected | None:
    specs, precision = [FeatureSpec(own, layer), LABELS], recipe.evaluate.precision
    return collect(
        source,
        [describe_features(spec, source, tables, device, precision) for spec in specs],
        lambda batch, numbers: compute_features(batch, [specs[n] for n in numbers], view_set, device, precision),
        batch_size=batch_size, workers=recipe.data.workers, device=device, label="embedding",
    )  # fmt: skip


def _describe(subject: Subject, own: EncoderUnderTest, layer: str, table: Table, patterns: list[str]) -> dict[str, Any]:
    """Return the metadata of an embedding: the subject, the views, the data, and the samples that were left out."""
    source, unusable, first = table.source, len(table.source) - len(table), None
    if unusable:
        gaps = np.flatnonzero(table.rows != np.arange(len(table)))
        row = int(gaps[0]) if len(gaps) else len(table)
        first = f"{source.key(row)} of {source.shard(row)}"
    return {
        "subject": {"name": subject.name, **subject.facts, "digest": own.digest},
        "layer": layer,
        "views": {
            view: {"width": width, **describe_origin(subject, own, layer, view)} for view, width in table.widths.items()
        },
        "mode": f"eval mode, {subject.recipe.evaluate.precision}, no augmentation, stored as {table.dtype.name}",
        "data": {
            "patterns": patterns,
            "shards": table.shard_names(subject.recipe.data.folder),
            "fingerprint": source.fingerprint,
            "missing": subject.recipe.data.missing,
            "samples": len(table),
        },
        "left_out": {"without_view": source.dropped, "undecodable": unusable, "first_undecodable": first},
        "absent": table.absent(),
        "versions": versions(),
    }
