"""Random numbers without a state: each number is a hash of (seed, position, name, place).

in   a seed, the position [n] of each sample in the run, and a name for what is drawn
out  uniform or normal numbers; row i depends on position i alone

A sample therefore gets the same draw on any number of processes, in any batch, and after any resume. No generator
state is saved. All arithmetic is on 64-bit integers, which gives the same result on every device.
"""

import functools
import hashlib
import itertools
import math
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

Integers = TypeVar("Integers", Tensor, np.ndarray)

# SplitMix64's constants as signed integers, because torch has no full unsigned arithmetic
GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB
_BLOCK = 1 << 15  # numbers that are hashed at a time on a CPU: 256 KB, and as much for what is shifted


def mix(x: Integers) -> Integers:
    """Return SplitMix64's finaliser (Steele et al., OOPSLA 2014) of int64 [...]: similar inputs, unrelated outputs."""
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def _shift_right(x: Integers, bits: int) -> Integers:
    """Shift as if x had no sign: `>>` repeats the sign bit, so these copies are masked out."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix_in_place(x: np.ndarray) -> np.ndarray:
    """Apply `mix` to int64 [...] in place: as unsigned numbers, so no mask, and without an array for each operation."""
    numbers = x.view(np.uint64)
    shifted = np.empty_like(numbers)
    for bits, factor in ((30, _MIX_1), (27, _MIX_2), (31, None)):
        np.right_shift(numbers, np.uint64(bits), out=shifted)
        numbers ^= shifted
        if factor is not None:
            numbers *= np.uint64(factor % 2**64)
    return x


def hash_name(*parts: object) -> int:
    """Return a signed 64-bit number for a name, the same in every process and on every machine."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


@functools.lru_cache(maxsize=1024)  # views draw the same names for every batch
def _hash_names(seed: int, scope: str, *names: str) -> np.ndarray:
    return np.array([hash_name(seed, scope, name) for name in names], np.int64)[:, None]


@functools.lru_cache(maxsize=1024)
def _list_places(counts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, list[slice]]:
    """Return for each number the row of its name and what its place adds to the hash; for each name its numbers."""
    places = np.concatenate([np.arange(1, k + 1) for k in (*counts, 0)]) * GOLDEN
    ends = list(itertools.accumulate(counts))
    parts = [slice(end - k, end) for k, end in zip(counts, ends, strict=True)]
    return np.repeat(np.arange(len(counts)), counts), places[:, None], parts


class Draws:
    """Random numbers for a batch whose samples have the places `position` (int64 [n]) in the run.

    `scope` is a prefix of every name, so that each view and each objective has its own numbers. `device` is where the
    numbers are computed and returned.
    """

    def __init__(self, seed: int, position: Tensor, device: torch.device | str = "cpu", scope: str = ""):
        self.seed, self.position, self.scope = seed, position, scope
        self.device = torch.device(device)

    def within(self, scope: str, device: torch.device | str | None = None) -> "Draws":
        """Return the draws of the same samples under a longer scope, on another device if one is given."""
        return Draws(self.seed, self.position, device or self.device, f"{self.scope}/{scope}")

    def bits(self, name: str, *shape: int) -> Tensor:
        """Return int64 [n, *shape] of 64 random bits each."""
        if self.device.type == "cpu":
            return torch.from_numpy(self._draw_bits(name, math.prod(shape))).view(-1, *shape)
        row = mix(self.position.to(self.device, non_blocking=True) * GOLDEN + hash_name(self.seed, self.scope, name))
        place = torch.arange(1, math.prod(shape) + 1, device=self.device) * GOLDEN
        return mix(row[:, None] + place).view(-1, *shape)

    def uniform(self, name: str, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return [n, *shape], uniform on [0, 1): 53 random bits in float64, 24 in any other type."""
        digits = 53 if dtype == torch.float64 else 24
        bits = self.bits(name, *shape).bitwise_right_shift_(64 - digits).bitwise_and_((1 << digits) - 1)
        return bits.to(dtype).mul_(2.0**-digits)

    def uniforms(self, **counts: int) -> dict[str, np.ndarray]:
        """Return the uniform draws of several names: name -> float64 [k, n], `uniform(name, k)` transposed.

        They are made on the host in one NumPy pass over all names. A few numbers per sample take less time than torch
        needs to start its operations.
        """
        keys = _hash_names(self.seed, self.scope, *counts)
        which, place, parts = _list_places(tuple(counts.values()))
        rows = _mix_in_place(self.position.cpu().numpy() * GOLDEN + keys)
        bits = rows[which]
        bits += place
        digits = _mix_in_place(bits).view(np.uint64)
        digits >>= np.uint64(11)
        numbers = digits.view(np.int64) * 2.0**-53
        return {name: numbers[part] for name, part in zip(counts, parts, strict=True)}

    def _draw_bits(self, name: str, count: int) -> np.ndarray:
        """Return int64 [n, count] as `bits` on a CPU: in blocks that stay in the cache, four times as fast as torch."""
        row = _mix_in_place(self.position.cpu().numpy() * GOLDEN + _hash_names(self.seed, self.scope, name)[0])
        place = np.arange(1, count + 1) * GOLDEN
        bits = np.empty((len(row), count), np.int64)
        size = max(1, _BLOCK // max(1, count))
        for begin in range(0, len(row), size):
            block = bits[begin : begin + size]
            np.add(row[begin : begin + size, None], place, out=block)
            _mix_in_place(block)
        return bits

    def take(self, rows: np.ndarray | slice) -> "Draws":
        """Return the draws of the samples in these rows (int64 [k], or a slice)."""
        return Draws(self.seed, self.position[rows], self.device, self.scope)

    def normal(self, name: str, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return [n, *shape], standard normal: the inverse distribution function of a uniform draw."""
        inside = self.uniform(name, *shape).mul_(1 - 2.0**-52).add_(2.0**-54)  # strictly between 0 and 1
        return torch.special.ndtri(inside).to(dtype)

    def integers(self, name: str, high: int, *shape: int) -> Tensor:
        """Return int64 [n, *shape], uniform on 0 .. high - 1."""
        return (self.uniform(name, *shape) * high).long()
