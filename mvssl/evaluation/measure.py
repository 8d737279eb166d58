"""Evaluate a subject: labelled shards to frozen features to probes to records, beside untrained encoder and raw pixels.

in   a subject, shards to fit probes on (default data.train) and to test on (default data.val)
out  records (see mvssl.evaluation.results.records), kept in the subject's evaluation.json and shown
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from mvssl.distributed import collectives
from mvssl.distributed.devices import arithmetic, enough_memory, is_out_of_memory
from mvssl.errors import DataError, RecipeError
from mvssl.evaluation.features import cache
from mvssl.evaluation.features.extraction import LESS, collect
from mvssl.evaluation.features.inputs import ALL, Hand, distinct
from mvssl.evaluation.features.layers import PIXELS, Candidate, Want, compute, describe
from mvssl.evaluation.features.splits import SIGNS, Classes, Patterns, Sources, Split, about_data, open_splits, remarks
from mvssl.evaluation.plan import Job, jobs_of, layer_of, need_labels, need_segments, refuse_unknown, wants_of
from mvssl.evaluation.probes.table import PROBES
from mvssl.evaluation.protocols import jobs_of_protocol
from mvssl.evaluation.results.metrics import NotPossible, Result, metric_of
from mvssl.evaluation.results.records import Record, about_label, gain, record, save, updated
from mvssl.evaluation.results.tables import tables, with_lines
from mvssl.evaluation.subject import Subject, candidates, open_subject, origin
from mvssl.files import RECORDS, try_place
from mvssl.recipe import Recipe
from mvssl.runs.load import LoadedRun, which_weights
from mvssl.runs.versions import versions
from mvssl.views import build_alike


@dataclass(frozen=True)
class Setting:
    """What all records of one evaluation share."""

    subject: Subject
    sources: Sources
    seed: int
    batch_size: int
    precision: str
    device: torch.device


@enough_memory(LESS)
@arithmetic("fp32")  # probes compare in IEEE; the encoder's own passes are as `evaluate.precision` says
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
    json_file: str | Path | None = None,
    seed: int = 0,
    checkpoint: str | int = "last",
    trust: Iterable[str] = (),
    batch_size: int = 256,
    show: bool = True,
) -> list[Record]:
    """Measure a subject and return its records; what is not given here is as its recipe says.

    The subject is a run folder, an export folder, `timm:NAME`, a `LoadedRun` or an open `Subject`. `recipe`,
    `overrides`, `weights`, `checkpoint` and `trust` say how to open it: see `open_subject`.
    `protocol` is a paper's own, by its name in `mvssl.evaluation.protocols`, in place of probes and a layer; `epochs`
    shortens it.
    Under a launcher every process must call it: all compute features, the main one probes them and has the records.
    They are kept in RUN/evaluation.json, in place of earlier ones of the same, or written to `json_file`; each as soon
    as it is made, so that what was measured outlives what ends the evaluation.
    Raises `RecipeError` for a probe, view, layer or protocol that is not there, and without shards to test on,
    `DataError` where samples have no labels, `OutputError` where the file cannot be written.
    """
    device = collectives.join()
    views = None if views is None else list(views)
    subject = open_subject(
        subject, recipe=recipe, overrides=overrides, weights=weights, views=views, trust=trust, checkpoint=checkpoint
    )
    said = subject.recipe.evaluate
    if protocol is not None:
        if probes or layer is not None:
            raise RecipeError("--protocol says which probes on which layers: give it without --probe and --layer")
        jobs = jobs_of_protocol(protocol, subject, epochs)
    elif epochs is not None:
        raise RecipeError("--epochs shortens a --protocol; probes have their own lengths")
    else:
        jobs = jobs_of(said, probes or said.probes, str(layer or said.layer))
    refuse_unknown(views or [], subject.views.bases)
    file = Path(json_file) if json_file else subject.home and subject.home / "evaluation.json"
    if file:
        collectives.run_on_main(lambda: try_place(file, RECORDS))  # before anything is computed
    needs = {"labels": need_labels(jobs), "segments": need_segments(jobs)}
    sources = collectives.run_main_first(lambda: open_splits(subject.recipe, data, test, other, **needs))
    for source in sources.shards.values():
        build_alike(subject.recipe.views, source.shapes, subject.views.shapes, subject.name)
    setting = Setting(subject, sources, seed, batch_size, said.precision, device)
    home = next(subject.model.parameters()).device
    try:
        own = list(candidates(subject, baselines))
        for candidate in own:
            if candidate.model is not None:
                candidate.model.to(device).eval()
        images = any(len(shape) == 3 for shape in subject.views.shapes.values())
        splits = features(setting, wants_of(jobs, own, images=images), needs["labels"])
        if collectives.rank():
            return []
        classes = Classes.of(splits["train"].labels, splits["test"].labels)
        lines = remarks(splits, classes)
        Console(stderr=True).print(
            *lines, sep="\n", end="\n" * bool(lines), highlight=False, markup=False, soft_wrap=True
        )
        if needs["labels"] and any(split.signs for split in splits.values()):
            raise DataError(f"data.label: {SIGNS}")
        notes: dict[str, None] = {}
        records: list[Record] = []
        for made in measure(setting, jobs, own, splits, classes, views, notes):
            records.append(made)
            if file:
                save(file, records if json_file else updated(file, records))
    finally:
        subject.model.to(home)
    if not records:
        raise DataError("nothing could be measured: " + "; ".join(notes))
    if show:
        deviations = (jobs[0].preset or {}).get("deviations", ())
        lines = ["other than in the paper:", *(f"- {told}" for told in deviations)] if deviations else []
        lines += [f"left out: {note}" for note in notes]
        console, which = Console(), which_weights(subject.facts.get("step"), subject.facts.get("which"))
        console.print(f"trained: {which}\n" if which else "", end="", highlight=False, markup=False)
        for table in tables(records, console.width):
            console.print(with_lines(table), "", sep="\n", highlight=False)
        console.print(*lines, sep="\n", highlight=False, markup=False)
    return records


def features(setting: Setting, wants: list[Want], labels: bool) -> dict[str, Split]:
    """What the jobs read of every split: from the cache, or computed by all processes; empty but on the main one.

    `labels` says whether a job needs them.
    """
    subject, device, precision = setting.subject, setting.device, setting.precision
    sources, entries, computed = setting.sources.shards, {}, 0
    for name, source in sources.items():
        collected = collect(
            source,
            [describe(want, source, subject.recipe.views, device, precision) for want in wants],
            lambda batch, numbers: compute(batch, [wants[n] for n in numbers], subject.views, device, precision),
            batch_size=setting.batch_size, workers=subject.recipe.data.workers, device=device,
            label=f"features of {name}",
        )  # fmt: skip
        if collected is not None:
            entries[name], computed = collected.entries, computed + collected.computed
    # not in the loop: where samples cannot be used the main process raises, and the others would wait for it
    splits = collectives.run_on_main(
        lambda: {name: Split(sources[name], wants, found, needed=labels) for name, found in entries.items()},
        share=False,
    )
    if splits:
        cached = len(splits) * len(wants) - computed
        held = sum(size for _, size, _ in cache.entries()) / 2**20
        text = f"features: {computed} computed, {cached} from the cache {cache.folder()}, {held:,.1f} MiB in all"
        Console(stderr=True).print(text, highlight=False, soft_wrap=True)
    return splits or {}


def measure(
    setting: Setting,
    jobs: list[Job],
    own: list[Candidate],
    splits: dict[str, Split],
    classes: Classes,
    wanted: list[str] | None,
    notes: dict[str, None],
) -> Iterator[Record]:
    """Every job on every view of every candidate; the trained one last, with its gain over the others."""
    subject = setting.subject
    names = choose_views(splits["test"].features(Want(own[-1], jobs[0].layer), first=16), wanted)
    protocol = _protocol(setting, splits)
    facts = {"n_train": len(splits["train"]), "n_test": len(splits["test"]), "classes_left_out": classes.left_out}
    facts |= {"shards": setting.sources.patterns, "versions": versions(), "device": str(setting.device)}
    results: dict[tuple, Result] = {}
    with Console(stderr=True).status("probing") as status:
        calls = list(_calls(own, jobs, names))
        for number, (candidate, job, view) in enumerate(calls, 1):
            passes = f", {job.options['epochs']} passes" if "epochs" in job.options else ""
            status.update(f"{number} of {len(calls)}: {job.probe} of {candidate.encoder} on {view}{passes}")
            layer = layer_of(job, candidate)
            hand = Hand(
                candidate, layer, splits, classes, subject.views, setting.device, setting.seed,
                workers=subject.recipe.data.workers, standardise=not job.preset,
            )  # fmt: skip
            for found in _called(job, hand, view, notes):
                found = _with_chance(found, splits, classes)
                key = job.probe, view, found.what, found.metric.name, str(job.options)
                results[candidate.encoder, layer, *key] = found
                others = (
                    {"untrained": (layer, *key), "pixels": (PIXELS, *key)} if candidate.encoder == "trained" else {}
                )
                gains = {o: gain(found, results[o, *k]) for o, k in others.items() if (o, *k) in results}
                about = {
                    "digest": candidate.digest,
                    **origin(subject, candidate, layer, view, standardised=hand.standardise),
                }
                yield record(
                    found, probe=job.probe, view=view, layer=layer, encoder=candidate.encoder, gain=gains,
                    **({"layer_called": job.called} if job.called and layer == job.layer else {}),
                    subject={"name": subject.name, **subject.facts, **about},
                    protocol={**protocol, **_of_job(job, subject.recipe)}, **facts,
                )  # fmt: skip


def _calls(own: list[Candidate], jobs: list[Job], names: list[str]) -> Iterator[tuple[Candidate, Job, str]]:
    """Candidate by candidate and view by view; pixels, which are every layer, once."""
    done = set()
    for candidate in own:
        for view in dict.fromkeys([*names, ALL]):
            for job in jobs:
                handed, chosen = PROBES[job.probe].handed, job.views or names
                if handed == "model" and candidate.model is None:
                    continue  # pixels have no encoder to train
                here = view == ALL if handed == "views" else view in chosen and (handed == "view" or view != ALL)
                key = candidate.encoder, view, layer_of(job, candidate), job.probe, str(job.options)
                if here and key not in done:
                    done.add(key)
                    yield candidate, job, view


def _called(job: Job, hand: Hand, view: str, notes: dict[str, None]) -> list[Result]:
    """What the probe finds; what is not possible goes to `notes`."""
    probe, keywords = PROBES[job.probe], {"seed": hand.seed, **job.options}
    try:
        if probe.other:
            keywords["other"] = hand.other(view)
        if probe.handed == "view":
            found = probe.run(*hand.view(view), **keywords)
        elif probe.handed == "views":
            found = probe.run(*hand.by_view(probe.inputs), **keywords)
        elif probe.handed == "maps":
            found = probe.run(*hand.maps(view), device=hand.device, **keywords)
        else:
            found = probe.run(hand.live(view), **keywords)
        results = [found] if isinstance(found, Result) else list(found)
        for result in results:
            if not math.isfinite(result.value):
                notes[f"{job.probe} {result.what} of {hand.candidate.encoder} on {view}: {result.value}"] = None
        return [result for result in results if math.isfinite(result.value)]
    except NotPossible as reason:
        notes[f"{job.probe}: {reason}"] = None
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        # what is measured next may fit, and the trained encoder comes last
        notes[
            f"{job.probe} of {hand.candidate.encoder} on {view}: it needs more memory than the device has; measure "
            "fewer views or a smaller layer at once (--view, --layer), or evaluate on a larger device"
        ] = None
    return []


def _with_chance(found: Result, splits: dict[str, Split], classes: Classes) -> Result:
    """The result with what guessing scores, where it is a classifier's and does not say itself."""
    labels = splits["test"].labels
    guessed = found.chance is None and len(labels) and found.metric == metric_of(labels)
    return found._replace(chance=classes.chance) if guessed else found


def choose_views(features: dict[str, Tensor], wanted: list[str] | None) -> list[str]:
    """The views to measure, and `all`; by default without those that the encoder sees exactly like an earlier one.

    Two draws of one column without their augmentation are the same picture.
    """
    if wanted is not None:
        return list(dict.fromkeys(wanted))
    names = distinct(features)
    return [*names, ALL] if len(names) > 1 else names


def _of_job(job: Job, recipe: Recipe) -> dict[str, Any]:
    """What a job adds to the protocol besides what its probe says: the paper it follows, where pixels' classes are."""
    segments = recipe.evaluate.segments if PROBES[job.probe].handed == "maps" else None
    said = {"preset": job.preset, "segments": segments and segments.model_dump(mode="json", exclude_defaults=True)}
    return {name: value for name, value in said.items() if value}


def _protocol(setting: Setting, splits: dict[str, Split]) -> dict[str, Any]:
    """What must agree between the numbers that this evaluation's are compared with."""
    return {
        "seed": setting.seed,
        "label": about_label(setting.subject.recipe),
        "data": about_data(splits),
        "mode": f"frozen, eval mode, {setting.precision}, no augmentation",
    }
