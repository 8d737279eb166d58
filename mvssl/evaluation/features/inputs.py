"""What probes are handed: features of a view or of all, local maps with the classes of pixels, an encoder to train.

in   the splits of an evaluation and one candidate at one layer
out  the arguments that mvssl.evaluation.probes.table promises, on the device
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mvssl.data import Batch, Sample, Shards, loader, sequential
from mvssl.data.decoding.labels import as_classes
from mvssl.evaluation.features.input_types import ByView, Dense, Live
from mvssl.evaluation.features.labelled import Labelled, join
from mvssl.evaluation.features.layers import DENSE, PIXELS, Candidate, Want, dense_numbers
from mvssl.evaluation.features.splits import Classes, Split
from mvssl.evaluation.results.metrics import NotPossible
from mvssl.recipe.naming import first_drawn
from mvssl.views import ViewSet

ALL = "all"  # every view, side by side
SEEN = 16  # samples by which two views are told apart


def distinct(features: dict[str, Tensor]) -> list[str]:
    """The views that the encoder does not see exactly like an earlier one.

    Two draws of one column are the same picture without their augmentation. Features that never vary are the fault of
    an encoder that collapsed, and say nothing about its views.
    """
    some, names = {view: x[:SEEN] for view, x in features.items()}, []
    for view, x in some.items():
        varies = not torch.allclose(x, x[:1].expand_as(x), atol=1e-5)
        alike = any(x.shape == some[n].shape and torch.allclose(x, some[n], atol=1e-5) for n in names)
        if not (alike and varies):
            names.append(view)
    return names


def refuse_other_sides(segments: Tensor, shape: tuple[int, ...], column: str) -> None:
    """Raise `NotPossible` where segments [n, H, W] do not have the sides of images (c, h, w), up to their scale.

    They then show another part of the scene, or a distorted one, and each pixel's class would be another pixel's.
    """
    (height, width), (h, w) = segments.shape[1:], shape[-2:]
    if abs(height * w - width * h) > max(h, w):  # a side may be off by a pixel, as sizes are rounded
        raise NotPossible(
            f"evaluate.segments are {height}x{width} and the images of column {column!r} {h}x{w}: they must show the "
            f"same; give evaluate.segments the size of the column, and interpolation: nearest"
        )


@dataclass(frozen=True)
class Some:
    """Some samples of a source, as a map-style dataset."""

    source: Shards
    rows: list[int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Sample:
        return self.source[self.rows[i]]


@dataclass(frozen=True)
class Hand:
    """One candidate at one layer, ready to be handed out."""

    candidate: Candidate
    layer: str
    splits: dict[str, Split]
    classes: Classes
    views: ViewSet
    device: torch.device
    seed: int
    workers: int = 0  # loader processes, where batches are decoded while a probe trains
    standardise: bool = True  # views that are joined, each by train; the papers join them as they are

    def view(self, name: str) -> tuple[Labelled, Labelled]:
        """Train and test of one view, or of all joined."""
        train, test = self._features("train", name), self._features("test", name)
        pair = self._joined(train, test) if name == ALL else (train[name], test[name])
        made = [Labelled(x.to(self.device), self._labels(s)) for x, s in zip(pair, ("train", "test"), strict=True)]
        return made[0], made[1]

    def other(self, name: str) -> Tensor:
        """Features of the shards of another distribution, as `view` gives those of train and test."""
        if "other" not in self.splits:
            raise NotPossible("it needs shards of another distribution: --other SHARDS")
        other = self._features("other", name)
        return (join(self._features("train", ALL), other)[1] if name == ALL else other[name]).to(self.device)

    def _joined(self, *splits: dict[str, Tensor]) -> tuple[Tensor, ...]:
        return join(*splits) if self.standardise else tuple(torch.cat([*split.values()], 1) for split in splits)

    def by_view(self, inputs: bool) -> tuple[ByView, ByView]:
        """Train and test with the views apart, without those that are another once more."""
        own, made = Want(self.candidate, self.layer), []
        views = distinct(self.splits["test"].features(own, first=SEEN))
        for split in ("train", "test"):
            features = self._of(split, own, views)
            pixels = self._of(split, Want(Candidate(PIXELS, None), PIXELS), views) if inputs else {}
            made.append(ByView(features, self._labels(split), pixels))
        return made[0], made[1]

    def maps(self, view: str) -> tuple[Dense, Dense]:
        """Train and test maps of one view; raises `NotPossible` where the classes of pixels are not known."""
        made, column = [], self.views.source_of(view)
        for name in ("train", "test"):
            segments, shape = self.splits[name].segments, self.splits[name].source.shapes[column]
            if segments is None:
                raise NotPossible("it needs the class of every pixel: evaluate.segments, such as {field: seg.png}")
            if len(self.views.shapes[first_drawn(view, self.views.names) or view]) != 3:
                raise NotPossible(f"view {view!r} is no image, and has no pixels to be of a class")
            refuse_other_sides(segments, shape, column)
            numbers = dense_numbers(self.candidate, self.layer, view)
            by_view = [self.splits[name].features(Want(self.candidate, DENSE + number), view) for number in numbers]
            maps = tuple(found[view] for found in by_view if view in found)
            if not maps:
                raise NotPossible(f"view {view!r} has no local maps")
            made.append(Dense(maps, segments))
        return made[0], made[1]

    def live(self, view: str) -> Live:
        """The candidate's encoder of one view, and batches to train and test it."""
        model = self.candidate.model
        if model is None:
            raise NotPossible("pixels have no encoder to train")

        def encoder() -> Any:
            return copy.deepcopy(model.encoder_of(view)).to(self.device)

        labels = self.classes(self.splits["train"].labels)
        return Live(view, len(self.classes), labels, self.device, encoder, self._drawn(view), self._clean(view))

    def _drawn(self, view: str) -> Any:
        drawn, split = first_drawn(view, self.views.names) or view, self.splits["train"]

        def batches(
            rows: Tensor, steps: int, batch_size: int, seed: int, augment: bool
        ) -> Iterator[tuple[Tensor, Tensor]]:
            some = Some(split.source, split.rows[rows].tolist())
            for batch in loader(some, batch_size=batch_size, seed=seed, stop_step=steps, **self._loading()):
                clean = self.views.clean(batch, self.device)[view] if not augment else None
                yield self._pair(self.views(batch, seed, self.device)[drawn] if clean is None else clean, batch)

        return batches

    def _clean(self, view: str) -> Any:
        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            for batch in sequential(self.splits["test"].source, batch_size=256, **self._loading()):
                yield self._pair(self.views.clean(batch, self.device)[view], batch)

        return batches

    def _loading(self) -> dict[str, Any]:
        """Decoding beside the training process, as in pretraining; a batch is the same with any number of workers."""
        return {"workers": self.workers, "pin_memory": self.device.type == "cuda"}

    def _pair(self, x: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        labels = as_classes(batch.columns["label"])
        keep = labels >= 0 if labels.ndim == 1 else torch.ones(len(labels), dtype=torch.bool)
        return x[keep.to(x.device)], self.classes(labels[keep]).to(x.device)

    def _features(self, split: str, view: str) -> dict[str, Tensor]:
        """Of one view, or of all."""
        return self.splits[split].features(Want(self.candidate, self.layer), None if view == ALL else view)

    def _of(self, split: str, want: Want, views: list[str]) -> dict[str, Tensor]:
        """On the device."""
        found = (self.splits[split].features(want, view) for view in views)
        return {view: x.to(self.device) for one in found for view, x in one.items()}

    def _labels(self, split: str) -> Tensor:
        labels = self.splits[split].labels
        return self.classes(labels).to(self.device) if len(labels) else labels
