"""What probes are handed besides `Labelled`: several views, local maps, or an encoder to be trained further."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mvssl.encoders import Encoder


class ByView(NamedTuple):
    """What several views say of the same n samples."""

    features: dict[str, Tensor]  # view -> [n, d]
    labels: Tensor  # int64 [n] or multi-hot float32 [n, c]
    inputs: dict[str, Tensor]  # view -> [n, d'], the clean views themselves, flattened


class Dense(NamedTuple):
    """Local maps of one view, shallow to deep, and the class of each pixel; on the CPU, mapped from files."""

    maps: tuple[Tensor, ...]  # each [n, c, h, w]: the map that --layer names, or all that DENSE_NUMBERS allows
    segments: Tensor  # uint8 or int64 [n, H, W]


@dataclass(frozen=True)
class Live:
    """One view's encoder to be trained further."""

    view: str
    classes: int
    labels: Tensor  # of train, as in `Labelled`
    device: torch.device
    encoder: Callable[[], Encoder]  # a fresh copy with the weights to start from; [n, ...] -> Features
    train: Callable[..., Iterator[tuple[Tensor, Tensor]]]  # (rows of train, steps, batch_size, seed, augment)
    test: Callable[[], Iterable[tuple[Tensor, Tensor]]]  # every sample once; both give views and their labels
