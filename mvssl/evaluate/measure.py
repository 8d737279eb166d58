"""Evaluate a subject: labelled shards to frozen features to probes to records, beside untrained encoder and raw pixels.

in   a subject, labelled shards to fit probes on (default data.train) and to test on (default data.val)
out  records (see mvssl.evaluate.records), kept in RUN/evaluation.json and shown
"""

import importlib.metadata
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from mvssl import distributed
from mvssl.data import Shards, open_shards, sequential
from mvssl.data.paths import listed
from mvssl.errors import DataError, RecipeError
from mvssl.evaluate.features import Encode, Extracted, Labelled, encode_model, encode_pixels, extract, join
from mvssl.evaluate.metrics import NotPossible, Result, metric_of
from mvssl.evaluate.probes import PROBES, ByView
from mvssl.evaluate.records import Record, gain, record, save, updated
from mvssl.evaluate.subject import Candidate, Subject, candidates, origin
from mvssl.evaluate.tables import tables
from mvssl.recipe import Recipe, nearest

ALL = "all"  # every view, side by side


class Job(NamedTuple):
    """A probe by its name and the keywords that it is called with."""

    probe: str
    options: dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """What all records of one evaluation share."""

    subject: Subject
    train: Shards
    test: Shards
    shards: dict[str, list[str]]  # the patterns that named train and test
    layer: str
    seed: int
    batch_size: int
    device: torch.device

    def batches(self, shards: Shards, stop: int | None = None) -> Iterable[Any]:
        """Every sample once, in order, without augmentation."""
        return sequential(shards, batch_size=self.batch_size, workers=self.subject.recipe.data.workers, stop=stop)


def evaluate(
    run: Any,
    *,
    probes: Iterable[str] | None = None,
    views: Iterable[str] | None = None,
    layer: str | None = None,
    data: str | list[str] | None = None,
    test: str | list[str] | None = None,
    baselines: bool = True,
    json_file: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 256,
    show: bool = True,
) -> list[Record]:
    """Measure a loaded run (`mvssl.run.load_run`) and return its records; what is not given is as the recipe says.

    Under a launcher the main process works; the others return at once, with no records. Keeps the records
    in RUN/evaluation.json, in place of earlier ones of the same, or writes them to `json_file`.
    Raises `RecipeError` for a probe, view or layer that does not exist and where there are no shards to test on,
    `DataError` where samples have no labels, `OutputError` where the file cannot be written.
    """

    if int(os.environ.get("RANK", distributed.rank())):
        return []
    subject = Subject.of_run(run)
    said = subject.recipe.evaluate
    jobs = choose_jobs(subject.recipe, list(probes or said.probes))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shards = open_labelled(subject.recipe, data, test)
    named = {"train": listed(data or subject.recipe.data.train), "test": listed(test or subject.recipe.data.val)}
    setting = Setting(subject, *shards, named, str(layer or said.layer), seed, batch_size, device)
    home = next(subject.model.parameters()).device
    notes: dict[str, None] = {}
    try:
        records = list(measure(setting, jobs, None if views is None else list(views), baselines, notes))
    finally:
        subject.model.to(home)
    if not records:
        raise DataError("nothing could be measured: " + "; ".join(notes))
    own = Path(run.folder) / "evaluation.json"
    save(Path(json_file), records) if json_file else save(own, updated(own, records))
    if show:
        Console().print(*tables(records), *(f"left out: {note}" for note in notes), sep="\n")
    return records


def open_labelled(recipe: Recipe, data: str | list[str] | None, test: str | list[str] | None) -> tuple[Shards, Shards]:
    """Train and test shards with the recipe's columns and the column `label`. Raises `RecipeError`, `DataError`."""
    if recipe.data.label is None:
        raise RecipeError("data.label: the recipe does not say where labels are; add for example label: {field: cls}")
    if data and not test:
        raise RecipeError("other shards to fit probes on need other shards to test on: give both --data and --test")
    if not (test or recipe.data.val):
        raise RecipeError("no labelled shards to test on: name them in data.val, or give --test SHARDS")
    columns = {**recipe.data.columns, "label": recipe.data.label}
    # a sample that lacks any view is left out for every view, so that all views are measured on the same samples
    fitted, tested = (
        open_shards(shards, recipe.data.folder, columns, missing="drop")
        for shards in (data or recipe.data.train, test or recipe.data.val)
    )
    return fitted, tested


def choose_jobs(recipe: Recipe, probes: list[str]) -> list[Job]:
    """What is measured of each encoder, in the order of PROBES. Raises `RecipeError` for an unknown probe."""
    for name in probes:
        if name not in PROBES:
            raise RecipeError(f"evaluate.probes: no probe {name!r}{nearest(name, PROBES)}")
    return [Job(name, row) for name in PROBES if name in probes for row in PROBES[name].rows(recipe.evaluate)]


def measure(
    setting: Setting, jobs: list[Job], wanted: list[str] | None, baselines: bool, notes: dict[str, None]
) -> Iterator[Record]:
    """Every job on every view of every encoder; the trained one last, with its gain over the others."""
    names = choose_views(setting, wanted)
    results: dict[tuple, Result] = {}
    with Console(stderr=True).status("reading") as status:
        for candidate in candidates(setting.subject, baselines):
            encoder = candidate.encoder
            status.update(f"{encoder}: features of {len(setting.train) + len(setting.test)} samples")
            encode = encode_of(setting, candidate)
            train, test = (
                extract(encode, setting.batches(shards), len(shards)) for shards in (setting.train, setting.test)
            )
            labels, chance, facts = same_classes(train.labels, test.labels)
            facts |= {"encoder": encoder, "layer": setting.layer if candidate.model else "pixels"}
            shared = protocol(setting, train, test)
            versions = {name: importlib.metadata.version(name) for name in VERSIONS}
            for view, job, found in run_jobs(setting, jobs, names, (train, test), labels, notes):
                status.update(f"{encoder}: {job.probe} on {view}")
                width = sum(x.shape[1] for v, x in train.features.items() if view in (ALL, v))
                key = view, job.probe, found.what, found.metric
                results[encoder, *key] = found
                gains = {
                    other: gain(found, results[other, *key])
                    for other in ("untrained", "pixels")
                    if encoder == "trained" and (other, *key) in results
                }
                about = {"name": setting.subject.name, **setting.subject.facts}
                about |= origin(setting.subject, candidate, setting.layer, view, width)
                yield record(
                    _with_chance(found, labels, chance), probe=job.probe, view=view,
                    **facts, gain=gains, subject=about, protocol=shared,
                    shards=setting.shards, versions=versions, device=str(setting.device),
                )  # fmt: skip


VERSIONS = ("mvssl", "torch", "timm", "scikit-learn", "numpy")


def run_jobs(
    setting: Setting,
    jobs: list[Job],
    names: list[str],
    splits: tuple[Extracted, Extracted],
    labels: tuple[Tensor, Tensor],
    notes: dict[str, None],
) -> Iterator[tuple[str, Job, Result]]:
    """View, job and result, of every job; what is not possible goes to `notes`."""
    whole = tuple(ByView(split.features, y, {}) for split, y in zip(splits, labels, strict=True))
    for view in names:
        pair = _pair(view, *splits, labels, setting.device)
        for job in (job for job in jobs if PROBES[job.probe].handed == "view"):
            yield from ((view, job, found) for found in _called(job, pair, setting.seed, notes))
    for job in (job for job in jobs if PROBES[job.probe].handed == "views"):
        yield from ((ALL, job, found) for found in _called(job, whole, setting.seed, notes))


def _called(job: Job, handed: tuple[Any, ...], seed: int, notes: dict[str, None]) -> list[Result]:
    try:
        found = PROBES[job.probe].run(*handed, seed=seed, **job.options)
    except NotPossible as reason:
        notes[f"{job.probe}: {reason}"] = None
        return []
    return [found] if isinstance(found, Result) else list(found)


def encode_of(setting: Setting, candidate: Candidate) -> Encode:
    """From a batch to the candidate's features by view."""
    views, device = setting.subject.views, setting.device
    if candidate.model is None:
        return encode_pixels(views, device)
    return encode_model(candidate.model.to(device).eval(), views, setting.layer, device)


def choose_views(setting: Setting, wanted: list[str] | None) -> list[str]:
    """The views to measure, and `all`; by default without those that the encoder sees exactly like an earlier one.

    Two draws of one column without their augmentation are the same picture. Raises `RecipeError` for an unknown view.
    """
    encode = encode_of(setting, Candidate("trained", setting.subject.model))
    batch = next(iter(setting.batches(setting.test, stop=min(len(setting.test), 16))))
    with torch.inference_mode():
        features = encode(batch)
    for name in wanted or []:
        if name not in (*features, ALL):
            raise RecipeError(f"no view {name!r}{nearest(name, (*features, ALL))}")
    if wanted is not None:
        return list(dict.fromkeys(wanted))
    names: list[str] = []
    for view, x in features.items():
        if not any(x.shape == features[n].shape and torch.allclose(x, features[n], atol=1e-5) for n in names):
            names.append(view)
    return [*names, ALL] if len(names) > 1 else names


def same_classes(train: Tensor, test: Tensor) -> tuple[tuple[Tensor, Tensor], float, dict[str, int]]:
    """The labels with the classes of both splits numbered alike, what guessing scores, and how much there is.

    Multi-hot: classes without a positive in train or in test cannot be learned or measured, and are left out and
    counted. Raises `DataError` where no class is left.
    """
    if train.ndim == 2:
        keep = (train.sum(0) > 0) & (test.sum(0) > 0)
        if not keep.any():
            raise DataError(
                "no class has a positive sample both in the shards to fit probes on and in those to test on"
            )
        train, test = train[:, keep], test[:, keep]
        chance, left_out = test.mean().item(), int((~keep).sum())
    else:
        known, together = torch.unique(torch.cat([train, test]), return_inverse=True)
        train, test = together.split([len(train), len(test)])
        counts = torch.bincount(train, minlength=len(known))
        chance, left_out = (test == counts.argmax()).double().mean().item(), 0
    return (train, test), chance, {"n_train": len(train), "n_test": len(test), "classes_left_out": left_out}


def _with_chance(found: Result, labels: tuple[Tensor, Tensor], chance: float) -> Result:
    """The result with what guessing scores, where it is a classifier's and does not say itself."""
    guessed = found.chance is None and found.metric == metric_of(labels[1])
    return found._replace(chance=chance) if guessed else found


def protocol(setting: Setting, train: Extracted, test: Extracted) -> dict[str, Any]:
    """What must agree between the numbers that this evaluation's are compared with."""
    label = setting.subject.recipe.data.label
    return {
        "seed": setting.seed,
        "label": label and label.model_dump(mode="json", exclude_none=True),
        "data": {
            split: {
                "fingerprint": shards.fingerprint,
                "shards": len(shards.paths),
                "samples": len(shards),
                "left_out": {"without_view_or_label": shards.dropped, **found.left_out},
            }
            for split, shards, found in (("train", setting.train, train), ("test", setting.test, test))
        },
        "mode": "frozen, eval mode, fp32, no augmentation",
    }


def _pair(
    view: str, train: Extracted, test: Extracted, labels: tuple[Tensor, Tensor], device: torch.device
) -> tuple[Labelled, Labelled]:
    if view == ALL:
        features = join(train.features, test.features)
    else:
        features = train.features[view], test.features[view]
    fitted, tested = (Labelled(x.to(device), y.to(device)) for x, y in zip(features, labels, strict=True))
    return fitted, tested
