"""The samples that an evaluation fits and tests on: their shards, features, labels and classes.

in   a recipe, patterns of shards, and the features to read
out  a `Split` for each: features and labels of all samples that have every view and a label and can be decoded
"""

import contextlib
import math
from collections.abc import Mapping
from functools import partial, reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mvssl.data.batch import as_class_labels
from mvssl.data.sample_errors import SampleError
from mvssl.data.shard_source import ShardSource, open_shards
from mvssl.data.shards.patterns import pattern_list
from mvssl.errors import DataError, RecipeError
from mvssl.evaluation.features.cache import CachedFeatures
from mvssl.evaluation.features.layers import LABELS, FeatureSpec
from mvssl.evaluation.results.metrics import expected_precision
from mvssl.recipe import Column, Data, Recipe
from mvssl.text import counted

SIGNS = 'the labels are -1 and 1, and -1 reads as "no label": write 0 and 1, or name the classes with data.label names'
Patterns = str | list[str] | None
NO_LABELS = torch.zeros(0, dtype=torch.int64)
CHECKED = 16  # samples whose labels are checked before features are computed


class Needs(NamedTuple):
    """What the probes of an evaluation need of the samples, beside views."""

    labels: bool = True
    segments: bool = False  # the class of every pixel


class SplitSources(NamedTuple):
    """Opened shards by split (`train`, `test`, and `other` if requested), and their patterns."""

    shards: dict[str, ShardSource]
    patterns: dict[str, list[str]]


def open_labelled(
    data: Data,
    patterns: str | list[str],
    columns: Mapping[str, Column] | None = None,
    *,
    required: bool = True,
    keep_unlabelled: bool = False,
    progress: bool = True,
    missing: Any = "drop",
) -> ShardSource:
    """Open shards with `columns`, by default the recipe's, and with the column `label` where the recipe names one.

    Samples without a label are dropped, or kept with `keep_unlabelled`. If the labels cannot be read, raise
    `DataError`, or open the shards without labels if they are not `required`. `missing` is as in `open_shards`.
    """
    columns = dict(data.columns if columns is None else columns)
    open_with = partial(open_shards, patterns, data.folder, missing=missing, progress=progress)
    if data.label is not None:
        with contextlib.nullcontext() if required else contextlib.suppress(DataError):
            return open_with({**columns, "label": data.label}, extra=("label",) if keep_unlabelled else ())
    return open_with(columns)


def open_splits(
    recipe: Recipe,
    train: Patterns = None,
    test: Patterns = None,
    other: Patterns = None,
    needs: Needs = Needs(),  # noqa: B008
) -> SplitSources:
    """Open the shards to fit on and to test on, with labels and segments if they are needed.

    Labels that are not needed are read if all of these shards have them. `other` needs no labels. A sample that lacks a
    view is dropped for every view, so all views are measured on the same samples. Raise `RecipeError` or `DataError` if
    shards or labels cannot be used.
    """
    data = recipe.data
    if data.label is None and needs.labels:
        raise RecipeError("data.label: the recipe names no labels; add for example label: {field: cls}")
    if train and not test:
        raise RecipeError("--data needs --test: to fit probes on other shards, give both --data and --test")
    if not (test or data.val):
        raise RecipeError("no labelled shards to test on: name them in data.val, or give --test SHARDS")
    named = {"train": pattern_list(train or data.train), "test": pattern_list(test or data.val)}
    extra = {"segments": recipe.evaluate.segments} if needs.segments and recipe.evaluate.segments else {}
    columns = {**data.columns, **extra}
    try:
        shards = {split: open_labelled(data, patterns, columns) for split, patterns in named.items()}
    except DataError:
        if needs.labels or data.label is None:
            raise
        shards = {split: open_shards(patterns, data.folder, columns) for split, patterns in named.items()}
    if other:
        named["other"] = pattern_list(other)
        shards["other"] = open_shards(named["other"], data.folder, data.columns)
    for source in shards.values():
        refuse_label_arrays(source)
        if needs.labels:
            refuse_non_classes(source)
    return SplitSources(shards, named)


def open_samples(recipe: Recipe) -> tuple[ShardSource, str]:
    """Return the shards of data.val, else of data.train, with labels if they have any, and the name of the split.

    Raise `DataError`, and `RecipeError` if the recipe names no shards.
    """
    patterns, split = (recipe.data.val, "held-out") if recipe.data.val else (recipe.data.train, "training")
    if not patterns:
        raise RecipeError("the recipe names no shards; a run on a dataset of one's own is shown without samples")
    return open_labelled(recipe.data, patterns, required=False, progress=False), split


def refuse_label_arrays(source: ShardSource) -> None:
    """Raise `RecipeError` if labels are neither numbers nor lists of numbers."""
    shape = source.shapes.get("label", ())
    if len(shape) > 1:
        raise RecipeError(
            f"data.label: labels have shape {list(shape)} for each sample; a number or a list of numbers is accepted"
        )


def refuse_non_classes(source: ShardSource) -> None:
    """Raise `DataError` if labels are not classes. A few samples are checked, before features are computed."""
    if "label" not in source.shapes:
        return
    last = CHECKED - 1
    for i in sorted({round(place * (len(source) - 1) / last) for place in range(CHECKED)}):
        with contextlib.suppress(SampleError):
            if (label := source[i].get("label")) is not None:
                as_class_labels(torch.from_numpy(np.asarray(label)[None]))


class Split:
    """One set of samples. Features stay mapped from the cache until they are read.

    Raise `DataError` if no sample has a label, or if labels are not classes. With `needed=False`, labels that are not
    classes are ignored.
    """

    def __init__(
        self, source: ShardSource, specs: list[FeatureSpec], entries: list[CachedFeatures], *, needed: bool = True
    ):
        self.source = source
        self._entries = {spec.key: entry for spec, entry in zip(specs, entries, strict=True)}
        labels = self._entries[LABELS.key].arrays
        rows = torch.from_numpy(reduce(np.intersect1d, [entry.rows.numpy() for entry in entries]))
        written = labels["label"][rows] if "label" in labels else NO_LABELS
        labelled = torch.ones(len(rows), dtype=torch.bool)  # without a column of labels all samples count
        if "labelled" in labels:
            labelled &= labels["labelled"][rows] > 0
        if "label" in labels and written.ndim == 1:
            labelled &= written >= 0
        self.rows = rows[labelled]
        self.left_out = {
            "without_view_or_label": source.dropped,
            "undecodable": len(source) - len(rows),
            "without_label": int((~labelled).sum()),
        }
        if not len(self.rows):
            raise DataError("no sample with a label; see data.label for the field that holds labels, and its path")
        try:
            self.labels = as_class_labels(written[labelled]) if "label" in labels else NO_LABELS
        except DataError:
            if needed:
                raise
            self.labels = NO_LABELS
        # whether the classes are -1 and 1, as for a support vector machine
        self.signs = written.ndim == 1 and {-1, 1} == set(written[:10_000].unique()[:3].tolist())

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def segments(self) -> Tensor | None:
        """The class of every pixel, [n, h, w], or None if the recipe has no segments."""
        labels = self._entries[LABELS.key]
        return self._select(labels, "segments")[:, 0] if "segments" in labels.arrays else None

    def describe(self) -> dict[str, Any]:
        """Return the entry of a protocol for these samples."""
        return {
            "fingerprint": self.source.fingerprint,
            "shards": len(self.source.paths),
            "samples": len(self.source),
            "left_out": self.left_out,
        }

    def features(self, spec: FeatureSpec, view: str | None = None, *, first: int | None = None) -> dict[str, Tensor]:
        """Return features by view, [n, d], or [n, c, h, w] of a dense layer, for one view or all views.

        `first` limits the number of samples. The result is a copy if samples are left out, else it is mapped.
        """
        entry = self._entries[spec.key]
        return {name: self._select(entry, name, first) for name in entry.arrays if view in (None, name)}

    def _select(self, entry: CachedFeatures, name: str, first: int | None = None) -> Tensor:
        array, rows = entry.arrays[name], self.rows[:first]
        return array[:first] if len(self.rows) == len(array) else array[rows]


class Classes(NamedTuple):
    """The classes of an evaluation: `known` class numbers, or a mask of the classes for multi-hot labels."""

    known: Tensor
    chance: float  # the score of guessing on test

    @classmethod
    def of(cls, train: Tensor, test: Tensor) -> "Classes":
        """Return the classes of both splits.

        Multi-hot classes without a positive in train or in test cannot be learned or measured. They are left out and
        counted. Raise `DataError` if no class is left.
        """
        if not len(train):
            return cls(train, math.nan)
        if train.ndim == 1:
            known = torch.unique(torch.cat([train, test]))
            most = known[torch.bincount(torch.searchsorted(known, train), minlength=len(known)).argmax()]
            return cls(known, (test == most).double().mean().item())
        keep = (train.sum(0) > 0) & (test.sum(0) > 0)
        if not keep.any():
            raise DataError(
                "no class has a positive sample both in the shards to fit probes on and in those to test on"
            )
        of_each = [expected_precision(right, len(test)) for right in test[:, keep].sum(0).long().tolist()]
        return cls(keep, sum(of_each) / len(of_each))

    def __len__(self) -> int:
        return int(self.known.sum()) if self.known.dtype == torch.bool else len(self.known)

    def __call__(self, labels: Tensor) -> Tensor:
        """Return labels in the form that probes read: int64 [n] from 0, or float32 [n, c]."""
        return labels[:, self.known] if labels.ndim == 2 else torch.searchsorted(self.known, labels)

    @property
    def left_out(self) -> int:
        """The number of multi-hot classes that cannot be measured."""
        return int((~self.known).sum()) if self.known.dtype == torch.bool else 0


def list_remarks(splits: dict[str, Split], classes: Classes) -> list[str]:
    """Return lines about the samples that are left out, with reasons, and about missing classes."""
    lines = []
    for name, split in splits.items():
        samples = counted(len(split) + sum(split.left_out.values()), "sample")
        for why, count in split.left_out.items():
            lines += [f"{name}: {count:,} of {samples} left out: {why.replace('_', ' ')}"] if count else []
    if any(split.signs for split in splits.values()):
        lines.append(SIGNS)
    if classes.left_out:
        missing = counted(classes.left_out, "class", "classes")
        lines.append(f"{missing} left out: no positive sample in train or in test")
    labels = {name: splits[name].labels for name in ("train", "test")}
    if labels["train"].ndim > 1:
        return lines
    seen = {name: set(own.unique().tolist()) for name, own in labels.items()}
    lines += [f"{name}: one class ({next(iter(own)):.0f})" for name, own in seen.items() if len(own) == 1]
    for name, other in (("train", "test"), ("test", "train")):
        if only := sorted(seen[name] - seen[other]):
            listed = ", ".join(map(str, only[:10])) + ", ..." * (len(only) > 10)
            lines.append(f"{name}: {counted(len(only), 'class', 'classes')} ({listed}) of which {other} has no sample")
    return lines
