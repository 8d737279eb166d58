"""Inputs of probes: features of one or several views, local maps with classes of pixels, an encoder to train.

in   the splits of an evaluation, one encoder at one layer, and a view
out  `ProbeInputs`, whose methods return tensors on the device. Local maps stay on the CPU, mapped from files
"""

import copy
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Subset

from mvssl.data.batch import Batch, as_class_labels
from mvssl.data.loading import loader, sequential_loader
from mvssl.evaluation.features.labelled import Labelled, join_views
from mvssl.evaluation.features.layers import CLEAN_VIEWS, DENSE, EncoderUnderTest, FeatureSpec, local_map_layers
from mvssl.evaluation.results.metrics import NotPossible
from mvssl.recipe.draw_names import first_draw_name

if TYPE_CHECKING:
    from mvssl.encoders import Encoder
    from mvssl.evaluation.features.splits import Classes, Split
    from mvssl.views import ViewSet

ALL = "all"  # the name of all views joined
COMPARED = 16  # samples that decide whether two views are equal

Batches = Iterator[tuple[Tensor, Tensor]]  # a view [b, ...] and its labels


class ByView(NamedTuple):
    """Several views of the same n samples."""

    features: dict[str, Tensor]  # view -> [n, d]
    labels: Tensor  # int64 [n] or multi-hot float32 [n, c]
    inputs: dict[str, Tensor]  # view -> [n, d'], the clean views, flattened; empty unless asked for


class LocalMaps(NamedTuple):
    """Local maps of one view, shallow to deep, and the class of each pixel, on the CPU and mapped from files."""

    maps: tuple[Tensor, ...]  # each [n, c, h, w]: the map of --layer, or the deepest maps
    segments: Tensor  # uint8 or int64 [n, H, W]


@dataclass(frozen=True)
class TrainableEncoder:
    """The encoder of one view, with batches to train and to test it."""

    view: str
    classes: int
    labels: Tensor  # of train, as in `Labelled`
    device: torch.device
    encoder: "Callable[[], Encoder]"  # a new copy with the weights to start from; [n, ...] -> Features
    train: Callable[[Tensor, int, int, int, bool], Batches]  # (rows of train, steps, batch_size, seed, augment)
    test: Callable[[], Iterable[tuple[Tensor, Tensor]]]  # every test sample once


@dataclass(frozen=True)
class ProbeInputs:
    """One encoder at one layer on one view, with the samples to fit on (train) and to test on (test)."""

    encoder: EncoderUnderTest
    layer: str
    view: str  # a view's name, or `all`
    splits: "dict[str, Split]"
    classes: "Classes"
    views: "ViewSet"
    device: torch.device
    seed: int
    workers: int = 0  # processes that decode batches while a probe trains
    standardise: bool = True  # standardise each view by train before views are joined; the papers do not

    def labelled(self) -> tuple[Labelled, Labelled]:
        """Return features [n, d] and labels of train and test."""
        train, test = self._features("train"), self._features("test")
        if self.view != ALL:
            joined = train[self.view], test[self.view]
        elif self.standardise:
            joined = join_views(train, test)
        else:
            joined = torch.cat([*train.values()], 1), torch.cat([*test.values()], 1)
        labels = self._labels("train"), self._labels("test")
        return Labelled(joined[0].to(self.device), labels[0]), Labelled(joined[1].to(self.device), labels[1])

    def other(self) -> Tensor:
        """Return features [k, d] of the shards of another distribution. Raise `NotPossible` if none were given."""
        if "other" not in self.splits:
            raise NotPossible("it needs shards of another distribution: --other SHARDS")
        other = self._features("other")
        return (join_views(self._features("train"), other)[1] if self.view == ALL else other[self.view]).to(self.device)

    def by_view(self, *, clean_views: bool = False) -> tuple[ByView, ByView]:
        """Return train and test with separate views, without duplicate views."""
        own = FeatureSpec(self.encoder, self.layer)
        views = distinct_views(self.splits["test"].features(own, first=COMPARED))

        def read(split: str, spec: FeatureSpec) -> dict[str, Tensor]:
            one_by_one = (self.splits[split].features(spec, view) for view in views)
            return {view: x.to(self.device) for features in one_by_one for view, x in features.items()}

        train, test = (
            ByView(read(split, own), self._labels(split), read(split, CLEAN_VIEWS) if clean_views else {})
            for split in ("train", "test")
        )
        return train, test

    def local_maps(self) -> tuple[LocalMaps, LocalMaps]:
        """Return maps and pixel classes of train and test. Raise `NotPossible` if the view or the recipe has none."""
        return self._local_maps("train"), self._local_maps("test")

    def _local_maps(self, name: str) -> LocalMaps:
        split, view, column = self.splits[name], self.view, self.views.source_of(self.view)
        segments = split.segments
        if segments is None:
            raise NotPossible("it needs the class of every pixel: evaluate.segments, such as {field: seg.png}")
        if len(self.views.shapes[self._drawn]) != 3:
            raise NotPossible(f"view {view!r} is not an image, so its pixels have no classes")
        refuse_other_sides(segments, split.source.shapes[column], column)
        layers = [DENSE + layer for layer in local_map_layers(self.encoder, self.layer, view)]
        by_layer = [split.features(FeatureSpec(self.encoder, layer), view) for layer in layers]
        maps = tuple(features[view] for features in by_layer if view in features)
        if not maps:
            raise NotPossible(f"view {view!r} has no local maps")
        return LocalMaps(maps, segments)

    def trainable_encoder(self) -> TrainableEncoder:
        """Return the encoder of the view, with batches of train and test. Raise `NotPossible` for raw pixels."""
        model, view = self.encoder.model, self.view
        if model is None:
            raise NotPossible("raw pixels have no encoder to train")

        def encoder() -> "Encoder":
            return copy.deepcopy(model.encoder_of(view)).to(self.device)

        labels = self.classes(self.splits["train"].labels)
        return TrainableEncoder(view, len(self.classes), labels, self.device, encoder, self._train, self._test)

    def _train(self, rows: Tensor, steps: int, batch_size: int, seed: int, augment: bool) -> Batches:
        split, pinned = self.splits["train"], self.device.type == "cuda"
        subset = Subset(split.source, split.rows[rows].tolist())  # pyright: ignore[reportArgumentType]
        for batch in loader(
            subset, batch_size=batch_size, seed=seed, stop_step=steps, workers=self.workers, pin_memory=pinned,
            draw=functools.partial(self.views.draw, seed=seed) if augment else None,
        ):  # fmt: skip
            if augment:
                yield self._pair(self.views(batch, seed, self.device)[self._drawn], batch)
            else:
                yield self._pair(self.views.clean(batch, self.device)[self.view], batch)

    def _test(self) -> Batches:
        source, pinned = self.splits["test"].source, self.device.type == "cuda"
        for batch in sequential_loader(source, batch_size=256, workers=self.workers, pin_memory=pinned):
            yield self._pair(self.views.clean(batch, self.device)[self.view], batch)

    def _pair(self, x: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return a view and its labels, without unlabelled samples."""
        labels = as_class_labels(batch.columns["label"])
        keep = labels >= 0 if labels.ndim == 1 else torch.ones(len(labels), dtype=torch.bool)
        return x[keep.to(x.device)], self.classes(labels[keep]).to(x.device)

    @property
    def _drawn(self) -> str:
        """The first draw of the view."""
        return first_draw_name(self.view, self.views.names) or self.view

    def _features(self, split: str) -> dict[str, Tensor]:
        view = None if self.view == ALL else self.view
        return self.splits[split].features(FeatureSpec(self.encoder, self.layer), view)

    def _labels(self, split: str) -> Tensor:
        labels = self.splits[split].labels
        return self.classes(labels).to(self.device) if len(labels) else labels


def distinct_views(features: dict[str, Tensor]) -> list[str]:
    """Return the views without duplicates. A duplicate has the same first rows as an earlier view.

    Without augmentation, two draws of one column are equal. Constant features come from a collapsed encoder and do not
    show that views are equal, so these views are kept.
    """
    first, names = {view: x[:COMPARED] for view, x in features.items()}, []
    for view, x in first.items():
        varies = not torch.allclose(x, x[:1].expand_as(x), atol=1e-5)
        equal = any(x.shape == first[n].shape and torch.allclose(x, first[n], atol=1e-5) for n in names)
        if not (equal and varies):
            names.append(view)
    return names


def refuse_other_sides(segments: Tensor, shape: tuple[int, ...], column: str) -> None:
    """Raise `NotPossible` if segments [n, H, W] and images (c, h, w) differ in their aspect ratio.

    The segments would show another or a distorted part of the scene, so classes would belong to other pixels.
    """
    (height, width), (h, w) = segments.shape[1:], shape[-2:]
    if abs(height * w - width * h) > max(h, w):  # sizes are rounded, so a side may differ by one pixel
        raise NotPossible(
            f"evaluate.segments are {height}x{width} and the images of column {column!r} {h}x{w}: they must show the "
            f"same area; give evaluate.segments the size of the column, and interpolation: nearest"
        )
