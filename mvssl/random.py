"""Stateless randomness: every number is a hash of (seed, position, name, place).

in   seed, position [n] (a sample's place in the whole run), the name of what is drawn
out  uniform or normal numbers, row i depending on position i alone

The same sample therefore gets the same draw on any number of processes, in any batch, after any resume, and there is
no generator state to save. All arithmetic is on 64-bit integers, which every device computes alike.
"""

import hashlib
import math

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed integer: torch has no full unsigned arithmetic
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's is arithmetic, so the copied sign bits are masked away."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele et al., OOPSLA 2014): neighbouring int64 inputs give unrelated outputs."""
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def hash_name(*parts: object) -> int:
    """A signed 64-bit number for a name, the same in every process and on every machine."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


class Draws:
    """The draws of a batch whose samples stand at `position` (int64 [n]) in the run.

    `scope` prefixes every name, so that a view's or an objective's draws are its own. Numbers come out on `device`.
    """

    def __init__(self, seed: int, position: Tensor, device: torch.device | str = "cpu", scope: str = ""):
        self.seed, self.position, self.scope = seed, position, scope
        self.device = torch.device(device)

    def within(self, scope: str, device: torch.device | str | None = None) -> "Draws":
        """The same samples under a longer scope, optionally with numbers on another device."""
        return Draws(self.seed, self.position, device or self.device, f"{self.scope}/{scope}")

    def bits(self, name: str, *shape: int) -> Tensor:
        """int64 [n, *shape], all 64 bits random."""
        row = mix(self.position.to(self.device, non_blocking=True) * _GOLDEN + hash_name(self.seed, self.scope, name))
        place = torch.arange(1, math.prod(shape) + 1, device=self.device) * _GOLDEN
        return mix(row[:, None] + place).view(-1, *shape)

    def uniform(self, name: str, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """[n, *shape], uniform on [0, 1): 53 random bits in float64, 24 otherwise."""
        digits = 53 if dtype == torch.float64 else 24
        return _shift(self.bits(name, *shape), 64 - digits).to(dtype) * 2.0**-digits

    def normal(self, name: str, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """[n, *shape], standard normal, by inverting the distribution function of a uniform draw."""
        middle = self.uniform(name, *shape).mul(1 - 2.0**-52).add(2.0**-54)  # strictly inside (0, 1)
        return torch.special.ndtri(middle).to(dtype)

    def integers(self, name: str, high: int, *shape: int) -> Tensor:
        """int64 [n, *shape], uniform on 0 .. high - 1."""
        return (self.uniform(name, *shape) * high).long()
