"""Evaluate a subject: compute frozen features of labelled shards, run probes, write records.

in   a subject, shards to fit probes on (default data.train) and to test on (default data.val)
out  records (see `mvssl.evaluation.results.records`), written to the subject's evaluation.json and shown as tables

It measures the trained encoder. Its baselines are the untrained encoder and raw pixels.
"""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from mvssl.distributed import collectives
from mvssl.distributed.devices import arithmetic, enough_memory
from mvssl.errors import DataError, RecipeError
from mvssl.evaluation.features.extraction import LESS
from mvssl.evaluation.features.inputs import ALL
from mvssl.evaluation.features.splits import SIGNS, Classes, Patterns, Split, SplitSources, list_remarks, open_splits
from mvssl.evaluation.measurement import Measurement
from mvssl.evaluation.opening import open_subject
from mvssl.evaluation.plan import PlannedProbe, list_needs, plan_probes
from mvssl.evaluation.protocols import plan_protocol
from mvssl.evaluation.results.records import Record, merge_into, save
from mvssl.evaluation.results.tables import print_tables
from mvssl.evaluation.subject import Subject, encoders_under_test
from mvssl.files import RECORDS, check_output
from mvssl.recipe.messages import nearest
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
    """Measure a subject and return its records. The recipe gives the default probes, layer and shards.

    The subject is a run folder, an export folder, `timm:NAME`, a `LoadedRun` or an open `Subject`. `recipe`,
    `overrides`, `weights`, `checkpoint` and `trust` are arguments of `open_subject`.
    `probes` are names in `mvssl.evaluation.probes`, or import paths package.module:Class. `protocol` is the name of a
    paper's protocol in `mvssl.evaluation.protocols`. It replaces `probes` and `layer`; `epochs` shortens it.

    Under a launcher every process must call it. All processes compute features. The main process runs the probes and
    returns the records. The others return []. Records are written to `json_file`, or by default to RUN/evaluation.json.
    There they replace earlier records with the same identity. Each record is written as soon as it is computed.

    Raise `RecipeError` for an unknown probe, view, layer or protocol, or if there are no shards to test on. Raise
    `DataError` if samples have no labels, and `OutputError` if the file cannot be written.
    """
    device = collectives.join_processes()
    views = None if views is None else list(views)
    subject = open_subject(
        subject, recipe=recipe, overrides=overrides, weights=weights, views=views, trust=trust, checkpoint=checkpoint
    )
    planned = _plan(subject, probes, layer, protocol, epochs)
    _refuse_unknown_views(subject, views or [])
    file = _check_file(subject, json_file)
    needs = list_needs(planned)
    sources = collectives.run_main_first(lambda: open_splits(subject.recipe, data, test, other, needs))
    _refuse_other_shapes(subject, sources)
    with encoders_under_test(subject, device, baselines=baselines) as encoders:
        measurement = Measurement(subject, encoders, planned, sources, views, device, seed, batch_size)
        splits = measurement.collect_splits()
        if collectives.rank():
            return []
        records: list[Record] = []
        for record in measurement.run(splits, _find_classes(splits, needs.labels)):
            records.append(record)
            if file:
                save(file, records if json_file else merge_into(file, records))
    notes = list(dict.fromkeys(measurement.notes))
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
    return plan_probes(table, probes or table.probes, str(table.layer if layer is None else layer))


def _refuse_unknown_views(subject: Subject, views: list[str]) -> None:
    known = (*subject.views.bases, ALL)
    for name in views:
        if name not in known:
            raise RecipeError(f"no view {name!r}{nearest(name, known)}")


def _refuse_other_shapes(subject: Subject, sources: SplitSources) -> None:
    for source in sources.shards.values():
        build_matching_views(subject.recipe.views, source.shapes, subject.views.shapes, subject.name)


def _check_file(subject: Subject, json_file: str | Path | None) -> Path | None:
    """Return the file for records. Raise `OutputError` now if it cannot be written, before anything is computed."""
    file = Path(json_file) if json_file else subject.home and subject.home / "evaluation.json"
    if file:
        collectives.run_on_main(lambda: check_output(file, RECORDS))
    return file


def _find_classes(splits: dict[str, Split], needed: bool) -> Classes:
    """Return the classes, and print what is left out. Raise `DataError` if labels are needed and are -1 and 1."""
    classes = Classes.of(splits["train"].labels, splits["test"].labels)
    for line in list_remarks(splits, classes):
        Console(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True)
    if needed and any(split.signs for split in splits.values()):
        raise DataError(f"data.label: {SIGNS}")
    return classes


def _show(subject: Subject, planned: list[PlannedProbe], records: list[Record], notes: list[str]) -> None:
    """Print the tables, the deviations from the paper, and what could not be measured."""
    deviations = (planned[0].preset or {}).get("deviations", ())
    lines = ["other than in the paper:", *(f"- {line}" for line in deviations)] if deviations else []
    lines += [f"left out: {note}" for note in notes]
    weights = which_weights(subject.facts.get("step"), subject.facts.get("which"))
    console = Console()
    console.print(f"trained: {weights}\n" if weights else "", end="", highlight=False, markup=False)
    print_tables(records)
    console.print(*lines, sep="\n", highlight=False, markup=False)
