"""Evaluate a run: labelled shards to frozen features to probes to records, beside the untrained encoder and raw pixels.

in   a run, labelled shards to fit probes on (default data.train) and to test on (default data.val)
out  one record per probe, view and encoder (see mvssl.evaluate.records), kept in RUN/evaluation.json and shown
"""

import importlib.metadata
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

from mvssl import distributed
from mvssl.data import Shards, open_shards, sequential
from mvssl.data.paths import listed
from mvssl.errors import DataError, RecipeError
from mvssl.evaluate.features import (
    Encode,
    Extracted,
    Labelled,
    encode_model,
    encode_pixels,
    extract,
    heads,
    join,
    pooled,
)
from mvssl.evaluate.fewlabel import fewlabel
from mvssl.evaluate.knn import knn
from mvssl.evaluate.linear import linear
from mvssl.evaluate.metrics import Result, metric_of
from mvssl.evaluate.records import Record, gain, record, save, table, updated
from mvssl.model import MultiView, build_model
from mvssl.recipe import Recipe, nearest

PROBES = ("knn", "linear", "fewlabel")
ALL = "all"  # every view, side by side


class Job(NamedTuple):
    """A probe with its options, called with train and test, and the keys of its records."""

    keys: dict[str, Any]
    probe: Callable[[Labelled, Labelled], Result]


@dataclass(frozen=True)
class Setting:
    """What all records of one evaluation share."""

    run: Any  # mvssl.run.LoadedRun
    train: Shards
    test: Shards
    shards: dict[str, list[str]]  # the patterns that named train and test
    layer: str
    seed: int
    batch_size: int
    device: torch.device

    def batches(self, shards: Shards, stop: int | None = None) -> Iterable[Any]:
        """Every sample once, in order, without augmentation."""
        return sequential(shards, batch_size=self.batch_size, workers=self.run.recipe.data.workers, stop=stop)


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
    said = run.recipe.evaluate
    jobs = choose_jobs(run.recipe, list(probes or said.probes), seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shards = open_labelled(run.recipe, data, test)
    named = {"train": listed(data or run.recipe.data.train), "test": listed(test or run.recipe.data.val)}
    setting = Setting(run, *shards, named, str(layer or said.layer), seed, batch_size, device)
    home = next(run.model.parameters()).device
    try:
        records = list(measure(setting, jobs, None if views is None else list(views), baselines))
    finally:
        run.model.to(home)
    own = Path(run.folder) / "evaluation.json"
    save(Path(json_file), records) if json_file else save(own, updated(own, records))
    if show:
        Console().print(table(records))
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


def choose_jobs(recipe: Recipe, probes: list[str], seed: int) -> list[Job]:
    """The rows of the table. Raises `RecipeError` for a probe that does not exist."""
    for name in probes:
        if name not in PROBES:
            raise RecipeError(f"evaluate.probes: no probe {name!r}{nearest(name, PROBES)}")
    few = partial(fewlabel, draws=recipe.evaluate.draws, seed=seed)
    jobs = [Job({"probe": "fewlabel", "shots": s}, partial(few, shots=s)) for s in sorted(recipe.evaluate.shots)]
    jobs += [Job({"probe": "knn"}, partial(knn, seed=seed)), Job({"probe": "linear"}, partial(linear, seed=seed))]
    return [job for job in jobs if job.keys["probe"] in probes]


def measure(setting: Setting, jobs: list[Job], wanted: list[str] | None, baselines: bool) -> Iterator[Record]:
    """Every job on every view of every encoder; the trained one last, with its gain over the others."""
    names = choose_views(setting, wanted)
    results: dict[tuple, Result] = {}
    with Console(stderr=True).status("reading") as status:
        for encoder, encode in encoders(setting, baselines):
            status.update(f"{encoder}: features of {len(setting.train) + len(setting.test)} samples")
            train, test = (
                extract(encode, setting.batches(shards), len(shards)) for shards in (setting.train, setting.test)
            )
            labels, facts = same_classes(train.labels, test.labels)
            facts |= {"encoder": encoder, "layer": setting.layer if encoder != "pixels" else "pixels"}
            shared = protocol(setting, train, test)
            for view in names:
                pair = _pair(view, train, test, labels, setting.device)
                origin = _origin(setting, encoder, view, pair[0].features.shape[1])
                for number, job in enumerate(jobs):
                    status.update(f"{encoder}: {job.keys['probe']} on {view}")
                    result = results[encoder, view, number] = job.probe(*pair)
                    gains = {
                        other: gain(result, results[other, view, number])
                        for other in ("untrained", "pixels")
                        if encoder == "trained" and (other, view, number) in results
                    }
                    yield record(
                        result, **job.keys, view=view, **facts,
                        gain=gains, protocol={**shared, **origin},
                    )  # fmt: skip


def choose_views(setting: Setting, wanted: list[str] | None) -> list[str]:
    """The views to measure, and `all`; by default without those that the encoder sees exactly like an earlier one.

    Two draws of one column without their augmentation are the same picture. Raises `RecipeError` for an unknown view.
    """
    encode = encode_model(setting.run.model.to(setting.device), setting.run.views, setting.layer, setting.device)
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


def encoders(setting: Setting, baselines: bool) -> Iterator[tuple[str, Encode]]:
    """Raw pixels, the encoder as the run began (its seed and start weights), and the trained one."""
    run, device = setting.run, setting.device
    if baselines:
        yield "pixels", encode_pixels(run.views, device)
        yield "untrained", encode_model(untrained(run).to(device), run.views, setting.layer, device)
    yield "trained", encode_model(run.model.to(device).eval(), run.views, setting.layer, device)


def untrained(run: Any) -> MultiView:
    """The model of the run's recipe and seed before its first step, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.recipe.train.seed)
        return build_model(run.recipe, run.views.shapes).eval()


def same_classes(train: Tensor, test: Tensor) -> tuple[tuple[Tensor, Tensor], dict[str, Any]]:
    """Number the classes of both splits alike, and the facts of a record that follow from the labels.

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
    facts = {"metric": metric_of(train), "n_train": len(train), "n_test": len(test), "chance": chance}
    return (train, test), facts | {"classes_left_out": left_out}


def protocol(setting: Setting, train: Extracted, test: Extracted) -> dict[str, Any]:
    """What stands behind every number of this evaluation."""
    recipe = setting.run.recipe
    names = ("mvssl", "torch", "timm", "scikit-learn", "numpy")
    return {
        "seed": setting.seed,
        "label": recipe.data.label.model_dump(mode="json", exclude_none=True),
        "data": {
            split: {
                "fingerprint": shards.fingerprint,
                "shards": len(shards.paths),
                "samples": len(shards),
                "left_out": {"without_view_or_label": shards.dropped, **found.left_out},
            }
            for split, shards, found in (("train", setting.train, train), ("test", setting.test, test))
        },
        "shards": setting.shards,
        "mode": "frozen, eval mode, fp32, no augmentation",
        "checkpoint": str(setting.run.checkpoint),
        "step": setting.run.step,
        "versions": {name: importlib.metadata.version(name) for name in names},
        "device": str(setting.device),
    }


def _origin(setting: Setting, encoder: str, view: str, width: int) -> dict[str, str]:
    """Where features come from: how they were made, and which objective's they are where the layer is a head."""
    origin = {"features": _describe(setting, encoder, view, width)}
    head = heads(setting.run.model).get(setting.layer)
    return origin | {"objective": head[0]} if head and encoder != "pixels" else origin


def _describe(setting: Setting, encoder: str, view: str, width: int) -> str:
    """How features came about, in words."""
    if view == ALL:
        return f"all views side by side, each standardised by train, {width} numbers"
    shape: tuple[int, ...] = (width,)
    if encoder == "pixels":
        shape = tuple(setting.run.views.shapes.get(view) or setting.run.views.shapes[f"{view}_0"])
    elif setting.layer.isdecimal():
        shape = tuple(setting.run.model.encoder_of(view).widths.maps[int(setting.layer)])
    how = "flattened" if pooled(shape) == shape else f"average-pooled to {'x'.join(map(str, pooled(shape)))}, flattened"
    return f"{width} numbers" if len(shape) == 1 else f"{'x'.join(map(str, shape))} {how}, {width} numbers"


def _pair(
    view: str, train: Extracted, test: Extracted, labels: tuple[Tensor, Tensor], device: torch.device
) -> tuple[Labelled, Labelled]:
    if view == ALL:
        features = join(train.features, test.features)
    else:
        features = train.features[view], test.features[view]
    fitted, tested = (Labelled(x.to(device), y.to(device)) for x, y in zip(features, labels, strict=True))
    return fitted, tested
