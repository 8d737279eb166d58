"""Frozen features: what an encoder, trained or not, says of every labelled sample once.

in   batches of labelled samples without augmentation, and a function from a batch to features by view
out  features [n, d] float32 by view, labels int64 [n] or multi-hot [n, c]; samples without a label or that could not
     be decoded are left out and counted
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mvssl.data import Batch
from mvssl.errors import DataError, RecipeError

LIMIT = 8192  # numbers per feature; more are average-pooled
EPSILON = 1e-6  # a feature that hardly varies in train is left as it is

Encode = Callable[[Batch], dict[str, Tensor]]


class Labelled(NamedTuple):
    """Features [n, d] with labels int64 [n] or multi-hot float32 [n, c]."""

    features: Tensor
    labels: Tensor


class Standard(NamedTuple):
    """Mean and inverse standard deviation [d] of a training set; called, it standardises [n, d]."""

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Standard":
        """Statistics of [n, d]; a constant feature keeps its scale."""
        deviation, mean = torch.std_mean(features, dim=0, correction=0)
        return cls(mean, torch.where(deviation > EPSILON, 1 / deviation, 1.0))

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) * self.scale


class Extracted(NamedTuple):
    """The features of one split by view, its labels, and how many samples it left out and why."""

    features: dict[str, Tensor]
    labels: Tensor
    left_out: dict[str, int]


def classes(labels: Tensor) -> int:
    """Number of classes: of multi-hot labels their length, of numbers one more than the largest."""
    return labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1


def one_hot(labels: Tensor, width: int) -> Tensor:
    """float32 [n, width]; multi-hot labels as they are."""
    return labels.float() if labels.ndim == 2 else F.one_hot(labels, width).float()


def extract(encode: Encode, batches: Iterable[Batch], samples: int) -> Extracted:
    """Run `encode` over at most `samples` samples, each batch once, and keep what has a label in column `label`.

    Left out and counted are undecodable samples and those whose label is absent or negative. Raises `DataError` where
    nothing is left.
    """
    features: dict[str, Tensor] = {}
    labels, filled = [], 0
    left_out = {"undecodable": 0, "without_label": 0}
    for batch in batches:
        keep = _labelled(batch)
        left_out["undecodable"] += len(batch.bad)
        left_out["without_label"] += int((~keep).sum())
        labels.append(batch.columns["label"][keep])
        with torch.inference_mode():
            found = {name: value.float().cpu()[keep] for name, value in encode(batch).items()}
        for name, value in found.items():
            whole = features.setdefault(name, torch.empty(samples, value.shape[1]))
            whole[filled : filled + len(value)] = value
        filled += int(keep.sum())
    if not filled:
        raise DataError("no sample with a label; see data.label for the field that holds labels, and its path")
    kept = torch.cat(labels)
    kept = kept.float() if kept.ndim == 2 else kept.long()
    return Extracted({name: value[:filled] for name, value in features.items()}, kept, left_out)


def _labelled(batch: Batch) -> Tensor:
    """bool [n]: which samples have a label."""
    labels = batch.columns["label"]
    labelled = batch.present.get("label", torch.ones(len(labels), dtype=torch.bool))
    return labelled & (labels >= 0) if labels.ndim == 1 else labelled


def pooled(shape: tuple[int, ...], limit: int = LIMIT) -> tuple[int, ...]:
    """The shape (c, ...) that `flatten` pools to: itself where it has at most `limit` numbers."""
    if math.prod(shape) <= limit or len(shape) == 1:
        return shape
    c, *sides = shape
    shrink = (limit / math.prod(shape)) ** (1 / len(sides))
    return c, *(max(1, int(side * shrink + 1e-9)) for side in sides)


def flatten(x: Tensor, limit: int = LIMIT) -> Tensor:
    """[n, c, ...] -> [n, d]; average-pooled over its one or two last dimensions first where d would exceed `limit`."""
    to = pooled(tuple(x.shape[1:]), limit)
    if to != tuple(x.shape[1:]):
        x = F.adaptive_avg_pool1d(x, to[1]) if len(to) == 2 else F.adaptive_avg_pool2d(x, (to[1], to[2]))
    return x.flatten(1)


def join(train: dict[str, Tensor], test: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """All views side by side, each standardised by its own train: two dicts of [n, d] -> [n, sum of d] twice."""
    standards = {view: Standard.of(features) for view, features in train.items()}
    together = [torch.cat([standards[v](x) for v, x in split.items()], dim=1) for split in (train, test)]
    return together[0], together[1]


def encode_pixels(views: Any, device: torch.device) -> Encode:
    """The clean views themselves as features."""
    return lambda batch: {name: flatten(x) for name, x in views.clean(batch, device).items()}


def encode_model(model: Any, views: Any, layer: str, device: torch.device) -> Encode:
    """A `MultiView`'s features at `layer`: vector, head, head:LABEL, or the number of a map."""

    def encode(batch: Batch) -> dict[str, Tensor]:
        found = model.encode(views.clean(batch, device))
        # a view that is drawn several times is one clean view, and its objective knows it by its draws
        drawn = {view: view if view in views.names else f"{view}_0" for view in found}
        return {view: at_layer(model, drawn[view], features, layer) for view, features in found.items()}

    return encode


def heads(model: Any) -> dict[str, tuple[str, Any]]:
    """Layers that objectives compare, with label and objective: `head:LABEL` of each, and `head`, the first of them."""
    found = [
        (label, term) for label, term in zip(model.labels, model.objective, strict=True) if hasattr(term, "represent")
    ]
    first = {"head": found[0]} if found else {}
    return first | {f"head:{label}": (label, term) for label, term in found}


def at_layer(model: Any, view: str, features: Any, layer: str) -> Tensor:
    """[n, d] of one view's `Features` at `layer`. Raises `RecipeError` that lists the layers that exist."""
    if layer == "vector":
        return features.vector
    known = heads(model)
    if layer in known:
        return known[layer][1].represent(view, features)
    if layer.isdecimal() and int(layer) < len(features.maps):
        return flatten(features.maps[int(layer)])
    accepted = ["vector", *known, *map(str, range(len(features.maps)))]
    raise RecipeError(f"evaluate.layer: view {view!r} has no layer {layer!r} (accepted: {', '.join(accepted)})")
