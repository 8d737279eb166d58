"""Embed: write the features of each sample of some shards once, on any number of processes.

in   a subject as for `mvssl evaluate`, shards (default data.val, else data.train), a path that does not exist
out  the file, written by the main process, and an `Embedded` with its contents

All processes compute features, as in an evaluation, and keep them in the cache (`mvssl.evaluation.features`). Features
that are in the cache are not computed again. One process writes the file, so its bytes do not depend on the number of
processes.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mvssl.data import ShardSource, pattern_list
from mvssl.distributed import collectives
from mvssl.distributed.devices import arithmetic, enough_memory
from mvssl.embedding.formats import choose_format
from mvssl.embedding.new_output import require_absent, write_whole
from mvssl.embedding.summary import Embedded
from mvssl.embedding.table import LABEL, EmbeddingTable
from mvssl.errors import RecipeError
from mvssl.evaluation.features.extraction import LESS, CollectedFeatures, collect_features
from mvssl.evaluation.features.layers import LABELS, EncoderUnderTest, FeatureSpec, compute_features, describe_features
from mvssl.evaluation.features.splits import Patterns, open_labelled, refuse_label_arrays
from mvssl.evaluation.opening import OVERRIDES, open_subject
from mvssl.evaluation.subject import Subject, describe_origin, encoders_under_test
from mvssl.recipe import Recipe, ViewConfig
from mvssl.recipe.messages import nearest
from mvssl.runs.load import LoadedRun
from mvssl.runs.versions import versions
from mvssl.views import build_matching_views

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
    """Write the features of all samples of `data` to `out`, for each of `views` at `layer`. Return what was written.

    The subject is a run folder, an export folder, `timm:NAME`, a `LoadedRun` or an open `Subject`. It is opened with
    `recipe`, `overrides`, `weights`, `checkpoint` and `trust`: see `mvssl.evaluation.open_subject`. For a run,
    `overrides` may change which data are read: `data.root`, `data.columns`, `data.missing` and some others.

    `out` determines the format: FILE.npz, FILE.parquet, or a folder of shards. Under a launcher every process must call
    the function. The main process writes. The other processes get None. Only columns that the views need are read.
    `data.missing` of the recipe decides what happens to samples that lack such a column. Samples without a label are
    kept.

    Raise `RecipeError` for an unknown suffix, view or layer. Raise `DataError` if the data do not fit or no sample can
    be used, `OutputError` if `out` exists, and `StorageError` if writing fails.
    """
    device, out = collectives.join_processes(), Path(out)
    views = None if views is None else list(views)
    subject = open_subject(
        subject, recipe=recipe, overrides=overrides, weights=weights, views=views, trust=trust, checkpoint=checkpoint,
        changes=CHANGES,
    )  # fmt: skip
    used = subject.recipe
    tables = _view_tables(used.views, views)
    layer = str(used.evaluate.layer if layer is None else layer)
    chosen = choose_format(out, tables)
    collectives.run_on_main(lambda: require_absent(out))
    patterns = pattern_list(data or used.data.val or used.data.train)
    source = collectives.run_main_first(lambda: _open_source(used, tables, patterns))
    with encoders_under_test(subject, device, baselines=False) as (encoder,):
        collected = _collect(subject, encoder, layer, tables, source, device, batch_size)
    if collected is None:
        return None
    table = EmbeddingTable(source, {view: one.source for view, one in tables.items()}, *collected.entries, half=half)
    about = _describe(subject, encoder, layer, table, patterns)
    with write_whole(out) as beside:
        chosen.write(table, beside, about)
    label = table.columns[LABEL].shape if LABEL in table.columns else None
    return Embedded(out, len(table), table.widths, table.dtype.name, label, collected.computed, about)


def _view_tables(known: Mapping[str, ViewConfig], views: Iterable[str] | None) -> dict[str, ViewConfig]:
    """Return the tables of the views to embed, without `geometry`, because no crop is drawn. Raise `RecipeError`."""
    tables = {}
    for name in views or known:
        if name not in known:
            raise RecipeError(f"no view {name!r}{nearest(name, known)}")
        tables[name] = known[name].model_copy(update={"geometry": None})
    return tables


def _open_source(recipe: Recipe, tables: Mapping[str, ViewConfig], patterns: list[str]) -> ShardSource:
    """Return the samples with the columns that the views need, and with labels if there are any."""
    needed = {table.source for table in tables.values()}
    columns = {name: column for name, column in recipe.data.columns.items() if name in needed}
    source = open_labelled(recipe.data, patterns, columns, keep_unlabelled=True, missing=recipe.data.missing)
    refuse_label_arrays(source)
    return source


def _collect(
    subject: Subject,
    encoder: EncoderUnderTest,
    layer: str,
    tables: Mapping[str, ViewConfig],
    source: ShardSource,
    device: torch.device,
    batch_size: int,
) -> CollectedFeatures | None:
    """Return the features and the labels of all samples on the main process, and None on the others."""
    view_set = build_matching_views(tables, source.shapes, subject.views.shapes, subject.name)
    specs, precision = [FeatureSpec(encoder, layer), LABELS], subject.recipe.evaluate.precision
    return collect_features(
        source,
        [describe_features(spec, source, tables, device, precision) for spec in specs],
        lambda batch, numbers: compute_features(batch, [specs[n] for n in numbers], view_set, device, precision),
        batch_size=batch_size, workers=subject.recipe.data.workers, device=device, label="embedding",
    )  # fmt: skip


def _describe(
    subject: Subject, encoder: EncoderUnderTest, layer: str, table: EmbeddingTable, patterns: list[str]
) -> dict[str, Any]:
    """Return the metadata of an embedding: the subject, the views, the data, and the samples that were left out."""
    source, root, first = table.source, subject.recipe.data.folder, None
    shards = [str(path.relative_to(root)) if path.is_relative_to(root) else str(path) for path in source.paths]
    views = {view: {"width": d, **describe_origin(subject, encoder, layer, view)} for view, d in table.widths.items()}
    unusable = len(source) - len(table)
    if unusable:
        gaps = np.flatnonzero(table.rows != np.arange(len(table)))
        row = int(gaps[0]) if len(gaps) else len(table)
        first = f"{source.key(row)} of {source.shard(row)}"
    return {
        "subject": {"name": subject.name, **subject.facts, "digest": encoder.digest},
        "layer": layer,
        "views": views,
        "mode": f"eval mode, {subject.recipe.evaluate.precision}, no augmentation, stored as {table.dtype.name}",
        "data": {
            "patterns": patterns,
            "shards": shards,
            "fingerprint": source.fingerprint,
            "missing": subject.recipe.data.missing,
            "samples": len(table),
        },
        "left_out": {"without_view": source.dropped, "undecodable": unusable, "first_undecodable": first},
        "absent": table.absent(),
        "versions": versions(),
    }
