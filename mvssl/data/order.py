"""The order of the samples of a run, as a pure function.

in   position int64 [n]: the place of a sample, counted from the start of the run
out  index int64 [n]: the number of the sample that is read at this position

Each epoch is a keyed permutation of all samples and starts where the last one ended. No sample is left out or repeated.
The index of any position is computed directly.

The permutation is a Feistel network on a grid of a x b cells with a b >= samples: each round shifts one coordinate by
a hash of the other. A result beyond the last sample is permuted again until it is a sample.
Black and Rogaway, Ciphers with arbitrary finite domains, CT-RSA 2002, sections 4 and 5.
"""

import math

import numpy as np

from mvssl.random import GOLDEN, hash_name, mix

_ROUNDS = 6  # each moves both coordinates; fewer rounds are too few on grids of two or three cells a side


class Order:
    """position -> index for a source of `samples`; the same on every machine for the same `seed`."""

    def __init__(self, samples: int, seed: int):
        if samples < 1:
            raise ValueError(f"an order needs at least one sample, not {samples}")
        self.samples, self.seed = samples, seed
        self._rows = math.isqrt(samples - 1) + 1
        self._columns = -(-samples // self._rows)
        self._keys = np.array([hash_name("order", seed, k) for k in range(2 * _ROUNDS)], np.int64)

    def __call__(self, position: np.ndarray) -> np.ndarray:
        """Return the index, 0 .. samples - 1, for each position."""
        epoch, place = np.divmod(np.asarray(position, np.int64), self.samples)
        key = mix(epoch * GOLDEN)
        index = self._permute(place, key)
        while len(outside := np.flatnonzero(index >= self.samples)):
            index[outside] = self._permute(index[outside], key[outside])
        return index

    def _permute(self, x: np.ndarray, key: np.ndarray) -> np.ndarray:
        """Return each epoch's permutation of all cells of the grid."""
        a, b = self._rows, self._columns
        left, right = x // b, x % b
        for k in range(0, 2 * _ROUNDS, 2):
            left = (left + _remainder(mix((right + self._keys[k]) ^ key), a)) % a
            right = (right + _remainder(mix((left + self._keys[k + 1]) ^ key), b)) % b
        return left * b + right

    def substitute(self, position: int, attempt: int) -> int:
        """Return the sample to read in place of one at `position` that cannot be decoded."""
        number = np.array([position], np.int64) * GOLDEN + hash_name("stand-in", self.seed) + attempt
        return int(_remainder(mix(number), self.samples)[0])


def spread_indices(samples: int, wanted: int) -> np.ndarray:
    """Return the indices of at most `wanted` of `samples`, evenly spaced from the first to the last, int64."""
    return np.unique(np.linspace(0, samples - 1, min(samples, wanted)).astype(np.int64))


def _remainder(x: np.ndarray, divisor: int) -> np.ndarray:
    """Return x modulo `divisor` with x taken as unsigned; int64."""
    return (x.view(np.uint64) % np.uint64(divisor)).astype(np.int64)
