"""Evaluate a subject: compute frozen features of labelled shards, run probes, write records.

in   a subject, shards to fit probes on (default data.train) and to test on (default data.val)
out  records (see `mvssl.evaluation.results.records`), written to the subject's evaluation.json and shown as tables

It measures the trained encoder, and as baselines the untrained encoder and raw pixels.
"""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from mvssl.distributed import collectives
from mvssl.distributed.devices import arithmetic, enough_memory
from mvssl.errors import DataError, RecipeError
from mvssl.evaluation.features.extraction import LESS
from mvssl.evaluation.features.splits import SIGNS, Classes, Patterns, list_remarks, open_splits
from mvssl.evaluation.measurement import Measurement, collect_splits, measure
from mvssl.evaluation.plan import (
    PlannedProbe,
    collect_specs,
    need_labels,
    need_segments,
    plan_probes,
    refuse_unknown_views,
)
from mvssl.evaluation.protocols import plan_protocol
from mvssl.evaluation.results.records import Record, merge_into, save
from mvssl.evaluation.results.tables import tables, with_lines
from mvssl.evaluation.subject import Subject, encoders_under_test, open_subject
from mvssl.files import RECORDS, check_output
from mvssl.runs.load import LoadedRun, which_weights
from mvssl.views import build_matching_views


@enough_memory(LESS)
@arithmetic("fp32")  # for probes; the encoder runs in `evaluate.precision`
def evaluate(
    subject: str | Path | LoadedRun | Subject,
    *,
    recipe: str | Path | None = None,
    overrides: Iterable[str] = (),
    weights: str | None = None,
    probes: Iterable[str] | None = None,
    views: Iterable[str] | None = None,
    layer: str | int | None = None,
    protocol: str | None = None,
    epochs: int | None = None,
    data: Patterns = None,
    test: Patterns = None,
    other: Patterns = None,
    baselines: bool = True,
    checkpoint: str | int = "last",
    trust: Iterable[str] = (),
    json_file: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 256,
    show: bool = True,
) -> list[Record]:
    """Measure a subject and return its records. The recipe gives the defaults.

    The subject is a run folder, an export folder, `timm:NAME`, a `LoadedRun` or an open `Subject`. `recipe`,
    `overrides`, `weights`, `checkpoint` and `trust` decide how it is opened: see `open_subject`.
    `probes` are names in `mvssl.evaluation.probes`, or import paths package.module:Class. `protocol` is the name of a
    paper's protocol in `mvssl.evaluation.protocols`. It replaces `probes` and `layer`; `epochs` shortens it.

    Under a launcher every process must call it. All processes compute features. The main process runs the probes and
    returns the records; the others return []. Records are written to RUN/evaluation.json, where they replace earlier
    records of the same identity, or to `json_file`. Each record is written at once, so it survives an early end.

    Raise `RecipeError` for an unknown probe, view, layer or protocol, and without shards to test on. Raise `DataError`
    if samples have no labels, and `OutputError` if the file cannot be written.
    """
    device = collectives.join()
    views = None if views is None else list(views)
    subject = open_subject(
        subject, recipe=recipe, overrides=overrides, weights=weights, views=views, trust=trust, checkpoint=checkpoint
    )
    planned = _plan(subject, probes, layer, protocol, epochs)
    refuse_unknown_views(views or [], subject.views.bases)
    file = Path(json_file) if json_file else subject.home and subject.home / "evaluation.json"
    if file:
        collectives.run_on_main(lambda: check_output(file, RECORDS))  # before anything is computed
    needs = {"labels": need_labels(planned), "segments": need_segments(planned)}
    sources = collectives.run_main_first(lambda: open_splits(subject.recipe, data, test, other, **needs))
    for source in sources.shards.values():
        build_matching_views(subject.recipe.views, source.shapes, subject.views.shapes, subject.name)
    shared = Measurement(subject, sources, seed, batch_size, subject.recipe.evaluate.precision, device)
    home = next(subject.model.parameters()).device
    try:
        encoders = list(encoders_under_test(subject, baselines))
        for encoder in encoders:
            if encoder.model is not None:
                encoder.model.to(device).eval()
        images = any(len(shape) == 3 for shape in subject.views.shapes.values())
        splits = collect_splits(shared, collect_specs(planned, encoders, images=images), needs["labels"])
        if collectives.rank():
            return []
        classes = Classes.of(splits["train"].labels, splits["test"].labels)
        lines = list_remarks(splits, classes)
        Console(stderr=True).print(
            *lines, sep="\n", end="\n" * bool(lines), highlight=False, markup=False, soft_wrap=True
        )
        if needs["labels"] and any(split.signs for split in splits.values()):
            raise DataError(f"data.label: {SIGNS}")
        notes: dict[str, None] = {}
        records: list[Record] = []
        for record in measure(shared, planned, encoders, splits, classes, views, notes):
            records.append(record)
            if file:
                save(file, records if json_file else merge_into(file, records))
    finally:
        subject.model.to(home)
    if not records:
        raise DataError("nothing could be measured: " + "; ".join(notes))
    if show:
        _show(subject, planned, records, notes)
    return records


def _plan(
    subject: Subject, probes: Iterable[str] | None, layer: str | int | None, protocol: str | None, epochs: int | None
) -> list[PlannedProbe]:
    if protocol is not None:
        if probes or layer is not None:
            raise RecipeError("--protocol decides the probes and the layers; use it without --probe and --layer")
        return plan_protocol(protocol, subject, epochs)
    if epochs is not None:
        raise RecipeError("--epochs shortens a --protocol; set the epochs of a probe in evaluate.options")
    table = subject.recipe.evaluate
    return plan_probes(table, probes or table.probes, str(layer or table.layer))


def _show(subject: Subject, planned: list[PlannedProbe], records: list[Record], notes: Iterable[str]) -> None:
    """Print the tables, the deviations from the paper, and what could not be measured."""
    deviations = (planned[0].preset or {}).get("deviations", ())
    lines = ["other than in the paper:", *(f"- {line}" for line in deviations)] if deviations else []
    lines += [f"left out: {note}" for note in notes]
    console, weights = Console(), which_weights(subject.facts.get("step"), subject.facts.get("which"))
    console.print(f"trained: {weights}\n" if weights else "", end="", highlight=False, markup=False)
    for table in tables(records, console.width):
        console.print(with_lines(table), "", sep="\n", highlight=False)
    console.print(*lines, sep="\n", highlight=False, markup=False)
