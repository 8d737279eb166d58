"""Embed: a subject and shards to a file of features, on any number of processes, each sample once.

in   a subject as `mvssl evaluate` takes it, shards (default data.val, else data.train), a path where nothing is
out  the file, written by the main process; `Embedded` says what is in it

All processes compute, as an evaluation does, and keep the features in the cache (`mvssl.evaluation.features`). What was
computed before is read from there. The file is then written by one process, so that its bytes do not depend on their
number.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mvssl.data import ShardSource, pattern_list
from mvssl.distributed import collectives
from mvssl.distributed.devices import arithmetic, enough_memory
from mvssl.embedding.formats import writer_of
from mvssl.embedding.place import placed, refuse
from mvssl.embedding.summary import Embedded
from mvssl.embedding.table import Table, check_names
from mvssl.errors import RecipeError
from mvssl.evaluation.features.extraction import LESS, Collected, collect
from mvssl.evaluation.features.layers import LABELS, EncoderUnderTest, FeatureSpec, compute_features, describe_features
from mvssl.evaluation.features.splits import Patterns, open_labelled, refuse_pictures
from mvssl.evaluation.subject import OVERRIDES, Subject, encoders_under_test, open_subject, origin
from mvssl.recipe import Recipe, View
from mvssl.recipe.messages import nearest
from mvssl.runs.load import LoadedRun
from mvssl.runs.versions import versions
from mvssl.views import ViewSet, build_matching_views

CHANGES = (*OVERRIDES, "data.columns.", "data.missing=")  # what may be said anew of a run's recipe


@enough_memory(LESS)
@arithmetic("fp32")  # but for the encoder's own passes, which are as `evaluate.precision` says
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
    """Write the features of every sample of `data` by a subject, at `layer` of each of `views`.

    The subject is a run folder, an export folder, `timm:NAME`, a `LoadedRun` or an open `Subject`. `recipe`,
    `overrides`, `weights`, `checkpoint` and `trust` say how to open it: see `mvssl.evaluation.open_subject`. Of a run,
    `overrides` may change the data that are read: `data.root`, `data.columns`, `data.missing` and the like.

    `out` decides on the format: FILE.npz, FILE.parquet, or a folder of shards. Under a launcher every process must call
    it; the main one writes, and the others get None. Only columns that the views need are read: `data.missing` of the
    recipe says what happens to samples that lack one, and one without a label is kept. Raises `RecipeError` for a
    suffix, view or layer that does not exist, `DataError` where the data do not fit or no sample can be used,
    `OutputError` where `out` exists, `StorageError` where writing fails.
    """
    device, out = collectives.join(), Path(out)
    views = None if views is None else list(views)
    subject = open_subject(
        subject, recipe=recipe, overrides=overrides, weights=weights, views=views, trust=trust, checkpoint=checkpoint,
        changes=CHANGES,
    )  # fmt: skip
    used, tables = subject.recipe, _tables(subject, views)
    layer = str(used.evaluate.layer if layer is None else layer)
    write = writer_of(out, list(tables))
    collectives.run_on_main(lambda: refuse(out))
    patterns = pattern_list(data or used.data.val or used.data.train)
    source = collectives.run_main_first(lambda: _opened(used, tables, patterns))
    seen = build_matching_views(tables, source.shapes, subject.views.shapes, subject.name)
    home = next(subject.model.parameters()).device
    try:
        (own,) = encoders_under_test(subject, baselines=False)
        subject.model.to(device).eval()
        found = _collected(source, own, layer, seen, tables, used, device, batch_size)
    finally:
        subject.model.to(home)
    if found is None:
        return None
    columns = {view: table.source for view, table in tables.items()}
    table = Table(source, columns, *found.entries, half=half)
    about = _about(subject, own, layer, table, patterns)
    with placed(out) as aside:
        write(table, aside, about)
    shape = table.label and table.label[0]
    return Embedded(out, len(table), table.widths, table.dtype.name, shape, found.computed, about)


def _tables(subject: Subject, wanted: Iterable[str] | None) -> dict[str, View]:
    """The views to embed. Nothing is drawn, so that none follows another's crop."""
    known = subject.recipe.views
    names = list(dict.fromkeys(wanted or known))
    for name in names:
        if name not in known:
            raise RecipeError(f"no view {name!r}{nearest(name, known)}")
    check_names(names)
    return {name: known[name].model_copy(update={"geometry": None}) for name in names}


def _opened(recipe: Recipe, tables: Mapping[str, View], patterns: list[str]) -> ShardSource:
    """The samples with what the views are made from, and their labels where they have some."""
    needed = {table.source for table in tables.values()}
    columns = {name: column for name, column in recipe.data.columns.items() if name in needed}
    source = open_labelled(recipe.data, patterns, columns, keep_unlabelled=True, missing=recipe.data.missing)
    refuse_pictures(source)
    return source


def _collected(
    source: ShardSource,
    own: EncoderUnderTest,
    layer: str,
    seen: ViewSet,
    tables: Mapping[str, View],
    recipe: Recipe,
    device: Any,
    batch_size: int,
) -> Collected | None:
    specs, precision = [FeatureSpec(own, layer), LABELS], recipe.evaluate.precision
    return collect(
        source,
        [describe_features(spec, source, tables, device, precision) for spec in specs],
        lambda batch, numbers: compute_features(batch, [specs[n] for n in numbers], seen, device, precision),
        batch_size=batch_size, workers=recipe.data.workers, device=device, label="embedding",
    )  # fmt: skip


def _about(subject: Subject, own: EncoderUnderTest, layer: str, table: Table, patterns: list[str]) -> dict[str, Any]:
    source, unusable, first = table.source, len(table.source) - len(table), None
    if unusable:
        gaps = np.flatnonzero(table.rows != np.arange(len(table)))
        row = int(gaps[0]) if len(gaps) else len(table)
        first = f"{source.key(row)} of {source.shard(row)}"
    return {
        "subject": {"name": subject.name, **subject.facts, "digest": own.digest},
        "layer": layer,
        "views": {view: {"width": width, **origin(subject, own, layer, view)} for view, width in table.widths.items()},
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
