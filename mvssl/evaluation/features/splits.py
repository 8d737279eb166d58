"""The samples that an evaluation fits and tests on: opened, their features collected, their classes numbered alike.

in   a recipe and patterns of shards; what is wanted of each sample
out  a `Split` of each: features and labels of the samples that have every view, a label, and can be decoded
"""

import contextlib
import math
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mvssl.data import SampleError, ShardSource, as_class_labels, open_shards, pattern_list
from mvssl.errors import DataError, RecipeError
from mvssl.evaluation.features.cache import Entry
from mvssl.evaluation.features.layers import LABELS, FeatureSpec
from mvssl.evaluation.results.metrics import expected_precision
from mvssl.recipe import Column, Recipe
from mvssl.text import counted

SIGNS = 'the labels are -1 and 1, and -1 reads as "no label": write 0 and 1, or name the classes with data.label names'
Patterns = str | list[str] | None
NO_LABELS = torch.zeros(0, dtype=torch.int64)
LOOKED_AT = 15  # samples whose labels are read, but for one, before features are computed


class Sources(NamedTuple):
    """Opened shards by split and the patterns that named them; `other` only where asked for."""

    shards: dict[str, ShardSource]
    patterns: dict[str, list[str]]


def open_splits(
    recipe: Recipe,
    train: Patterns = None,
    test: Patterns = None,
    other: Patterns = None,
    *,
    labels: bool = True,
    segments: bool = False,
) -> Sources:
    """ShardSource with the recipe's columns, and `label` and `segments` where they are needed.

    Labels that nobody needs are taken where the shards have them; `other` needs none. Raises `RecipeError` and
    `DataError`.
    """
    if recipe.data.label is None and labels:
        raise RecipeError("data.label: the recipe does not say where labels are; add for example label: {field: cls}")
    if train and not test:
        raise RecipeError("other shards to fit probes on need other shards to test on: give both --data and --test")
    if not (test or recipe.data.val):
        raise RecipeError("no labelled shards to test on: name them in data.val, or give --test SHARDS")
    extra = {"label": recipe.data.label, "segments": recipe.evaluate.segments if segments else None}
    columns = {**recipe.data.columns, **{name: column for name, column in extra.items() if column}}
    named = {"train": pattern_list(train or recipe.data.train), "test": pattern_list(test or recipe.data.val)}
    named |= {"other": pattern_list(other)} if other else {}
    try:
        shards = _opened(recipe, named, columns)
    except DataError:
        if labels or "label" not in columns:
            raise
        shards = _opened(recipe, named, {name: column for name, column in columns.items() if name != "label"})
    for source in shards.values():
        refuse_pictures(source)
        if labels:
            refuse_numbers(source)
    return Sources(shards, named)


def _opened(recipe: Recipe, named: dict[str, list[str]], columns: dict[str, Column]) -> dict[str, ShardSource]:
    # a sample that lacks any view is left out for every view, so that all views are measured on the same samples
    return {
        split: open_shards(
            patterns, recipe.data.folder, recipe.data.columns if split == "other" else columns, missing="drop"
        )
        for split, patterns in named.items()
    }


def refuse_pictures(source: ShardSource) -> None:
    """Raise `RecipeError` where labels are neither numbers nor lists of numbers: known before anything is computed."""
    shape = source.shapes.get("label", ())
    if len(shape) > 1:
        raise RecipeError(f"data.label: {list(shape)} for each sample; labels are a number or a list of numbers")


def refuse_numbers(source: ShardSource) -> None:
    """Raise `DataError` where the labels of some samples are no classes, before hours of computing features."""
    if "label" not in source.shapes:
        return
    for i in sorted({round(place * (len(source) - 1) / LOOKED_AT) for place in range(LOOKED_AT + 1)}):
        with contextlib.suppress(SampleError):
            if (label := source[i].get("label")) is not None:
                as_class_labels(torch.from_numpy(np.asarray(label)[None]))


class Split:
    """One set of samples; features stay mapped from the cache until they are asked for.

    With `needed` false, labels that are no classes count as none. Raises `DataError` where labels are needed and no
    sample has one, or they are no classes.
    """

    def __init__(self, source: ShardSource, specs: list[FeatureSpec], entries: list[Entry], *, needed: bool = True):
        self.source = source
        self._entries = {spec.key: entry for spec, entry in zip(specs, entries, strict=True)}
        rows = reduce(np.intersect1d, [entry.rows.numpy() for entry in entries])
        labels = self._entries[LABELS.key]
        labelled = _labelled(labels, rows)
        self.rows = torch.from_numpy(rows[labelled])
        self.left_out = {
            "without_view_or_label": source.dropped,
            "undecodable": len(source) - len(rows),
            "without_label": int((~labelled).sum()),
        }
        if not len(self.rows):
            raise DataError("no sample with a label; see data.label for the field that holds labels, and its path")
        label = self._taken(labels, "label") if "label" in labels.arrays else NO_LABELS
        try:
            self.labels = as_class_labels(label)
        except DataError:
            if needed:
                raise
            self.labels = NO_LABELS
        whole = labels.arrays["label"][torch.from_numpy(rows)] if "label" in labels.arrays else NO_LABELS
        self.signs = whole.ndim == 1 and {-1, 1} == set(whole[:10_000].unique()[:3].tolist())  # an SVM's classes

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def segments(self) -> Tensor | None:
        """The class of every pixel, [n, h, w]; None where the recipe does not say where they are."""
        labels = self._entries[LABELS.key]
        return self._taken(labels, "segments")[:, 0] if "segments" in labels.arrays else None

    def features(self, spec: FeatureSpec, view: str | None = None, *, first: int | None = None) -> dict[str, Tensor]:
        """By view, [n, d] or [n, c, h, w] of a dense layer: of every view that has it or of one, of all samples or few.

        Where a sample is left out, what is asked for is copied from the cache, and else mapped.
        """
        entry = self._entries[spec.key]
        return {name: self._taken(entry, name, first) for name in entry.arrays if view in (None, name)}

    def _taken(self, entry: Entry, name: str, first: int | None = None) -> Tensor:
        whole, rows = entry.arrays[name], self.rows[:first]
        return whole[:first] if len(self.rows) == len(whole) else whole[rows]


def _labelled(labels: Entry, rows: np.ndarray) -> np.ndarray:
    """bool [len(rows)]: which of these samples have a label; all where there is no column of labels."""
    found = np.ones(len(rows), dtype=bool)
    if "labelled" in labels.arrays:
        found &= labels.arrays["labelled"].numpy()[rows] > 0
    if "label" in labels.arrays and labels.arrays["label"].ndim == 1:
        found &= labels.arrays["label"].numpy()[rows] >= 0
    return found


class Classes(NamedTuple):
    """Which labels count, and how they are numbered: of class numbers the `known` ones, of multi-hot ones a mask."""

    known: Tensor
    chance: float  # what guessing scores on test

    @classmethod
    def of(cls, train: Tensor, test: Tensor) -> "Classes":
        """The classes of both splits.

        Multi-hot: classes without a positive in train or in test cannot be learned or measured, and are left out and
        counted. Raises `DataError` where no class is left.
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
        """Labels as probes take them: int64 [n] from 0, or float32 [n, c]."""
        return labels[:, self.known] if labels.ndim == 2 else torch.searchsorted(self.known, labels)

    @property
    def left_out(self) -> int:
        """Multi-hot classes that cannot be measured."""
        return int((~self.known).sum()) if self.known.dtype == torch.bool else 0


def list_remarks(splits: dict[str, Split], classes: Classes) -> list[str]:
    """Lines that a reader of the numbers must see: how many samples are left out, and why; classes that are missing."""
    lines = []
    for name, split in splits.items():
        for why, count in split.left_out.items():
            if count:
                of = f"{counted(len(split) + sum(split.left_out.values()), 'sample')}"
                lines.append(f"{name}: {count:,} of {of} left out: {why.replace('_', ' ')}")
    if any(split.signs for split in splits.values()):
        lines.append(SIGNS)
    train, test = (splits[name].labels for name in ("train", "test"))
    if train.ndim == 1 and len(train):
        seen, asked = set(train.unique().tolist()), set(test.unique().tolist())
        lines += [f"{name}: one class ({only:.0f})" for name, found in (("train", seen), ("test", asked))
                  if len(found) == 1 for only in found]  # fmt: skip
        for name, only in (("train", seen - asked), ("test", asked - seen)):
            other = "test" if name == "train" else "train"
            if only:
                listed = ", ".join(map(str, sorted(only)[:10])) + ", ..." * (len(only) > 10)
                lines.append(
                    f"{name}: {counted(len(only), 'class', 'classes')} ({listed}) of which {other} has no sample"
                )
    elif classes.left_out:
        lines.append(
            f"{counted(classes.left_out, 'class', 'classes')} left out: no positive sample in train or in test"
        )
    return lines


def describe_splits(splits: dict[str, Split]) -> dict[str, Any]:
    """What a record says of the samples."""
    return {
        name: {
            "fingerprint": split.source.fingerprint,
            "shards": len(split.source.paths),
            "samples": len(split.source),
            "left_out": split.left_out,
        }
        for name, split in splits.items()
    }
