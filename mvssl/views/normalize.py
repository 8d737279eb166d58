"""Normalisation: (x - mean) / std for each channel, by named statistics, by numbers, or measured on the training data.

in   a name, {mean: [...], std: [...]}, or `data`, and the channels that a view keeps
out  mean and std, float32, a number for each channel or feature
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from mvssl.distributed.devices import send_constant
from mvssl.errors import RecipeError

Name = Literal["half", "imagenet", "cifar10", "lab", "ydbdr", "data", "none"]
Numbers = dict[Literal["mean", "std"], list[float]]

# mean and std of all channels of a colour space; a single number holds for every channel
STATISTICS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "none": ((0.0,), (1.0,)),
    "half": ((0.5,), (0.5,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((125.3 / 255, 123.0 / 255, 113.9 / 255), (63.0 / 255, 62.1 / 255, 66.7 / 255)),
    "lab": ((50.0, 6.025, -6.6895), (50.0, 92.208, 101.1675)),  # those of CMC
    "ydbdr": ((0.5, 0.0, 0.0), (0.5, 1.333, 1.333)),
}
SAMPLES = 2048


def channel_statistics(
    normalize: str | Mapping[Any, Sequence[float]], kept: list[int], count: int
) -> tuple[Tensor, Tensor]:
    """Return mean and std, float32 [len(kept)], of the channels `kept` out of `count`.

    Named statistics describe all channels, numbers describe the kept ones. Raises `RecipeError`.
    """
    if not isinstance(normalize, str):
        mean, std, kept = normalize.get("mean", []), normalize.get("std", []), list(range(len(kept)))
        expected = len(kept)
    elif normalize == "data":
        raise RecipeError("normalize: data needs the training source; see mvssl.views.resolve_statistics")
    else:
        (mean, std), expected = STATISTICS[normalize], count
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, expected):
            raise RecipeError(f"normalize: {normalize} has {len(values)} numbers as {name}; it needs {expected} or 1")
    if not all(math.isfinite(m) for m in mean) or not all(s > 0 and math.isfinite(s) for s in std):
        raise RecipeError(f"normalize: {normalize}: means are finite numbers, stds are above 0")
    return _select(mean, kept), _select(std, kept)


def _select(values: Sequence[float], kept: list[int]) -> Tensor:
    return torch.tensor([values[k if len(values) > 1 else 0] for k in kept], dtype=torch.float32)


@functools.lru_cache(maxsize=256)  # the same tensors for every batch
def _shift_and_scale(mean: Tensor, std: Tensor, device: torch.device) -> Tensor:
    return send_constant(torch.stack([-mean / std, 1 / std]), device)


def normalize_channels(x: Tensor, mean: Tensor, std: Tensor, out: Tensor | None = None) -> Tensor:
    """Return (x - mean) / std along dimension 1, in `out` if given; mean and std are on the CPU."""
    shift, scale = _shift_and_scale(mean, std, x.device).view(2, -1, *[1] * (x.dim() - 2))
    if x.device.type == "cpu":  # torch's addcmul is not vectorised there for numbers that a channel shares
        return torch.mul(x, scale, out=out).add_(shift)
    return torch.addcmul(shift, x, scale, out=out)


class ChannelMoments:
    """Running mean and std of each channel (dimension 1), in float64; values that are not finite are left out."""

    def __init__(self) -> None:
        self.count, self.total, self.square = (torch.zeros(1, dtype=torch.float64) for _ in range(3))

    def add(self, x: Tensor) -> None:
        """Add views [n, c, ...]."""
        rows = x.double().transpose(0, 1).flatten(1)
        finite = rows.isfinite()
        rows = torch.where(finite, rows, 0.0)
        self.count = self.count + finite.sum(1)
        self.total, self.square = self.total + rows.sum(1), self.square + rows.square().sum(1)

    def to_recipe(self) -> dict[str, Any]:
        """Return `normalize` as a recipe writes it, with six digits; a channel that never varies gets std 1."""
        mean = self.total / self.count.clamp(min=1)
        std = (self.square / self.count.clamp(min=1) - mean.square()).clamp(min=0).sqrt()
        std = torch.where(std > 1e-6 * (1 + mean.abs()), std, 1.0)
        return {"mean": [float(f"{m:.6g}") for m in mean], "std": [float(f"{s:.6g}") for s in std]}
