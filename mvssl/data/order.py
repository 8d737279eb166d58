"""The place of every sample in the run, as a pure function.

in   position int64 [n]: a sample's place counted from the start of the run
out  index int64 [n]: which sample of the source stands there

Each epoch is a keyed permutation of all samples and begins where the last one ended, so no sample is dropped or
repeated and a seek costs nothing. The permutation is a Feistel network on the grid a x b with a b >= samples, in
which each half is shifted by a hash of the other; what lands outside the samples walks on until it is inside.
Black and Rogaway, Ciphers with arbitrary finite domains, CT-RSA 2002, sections 4 and 5.
"""

import math

import numpy as np

from mvssl.random import hash_name

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_ROUNDS = 6  # each moves both halves; fewer are too few on grids of two or three cells a side


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele et al., OOPSLA 2014) of uint64 [n]."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


class Order:
    """position -> index for a source of `samples`; the same on every machine for the same `seed`."""

    def __init__(self, samples: int, seed: int):
        if samples < 1:
            raise ValueError(f"an order needs at least one sample, not {samples}")
        self.samples, self.seed = samples, seed
        self._rows = math.isqrt(samples - 1) + 1
        self._columns = -(-samples // self._rows)
        names = [hash_name("order", seed, turn) for turn in range(2 * _ROUNDS)]
        self._keys = np.array(names, np.int64).view(np.uint64)
        self._stand_in = np.array([hash_name("stand-in", seed)], np.int64).view(np.uint64)

    def __call__(self, position: np.ndarray) -> np.ndarray:
        """int64 [n] -> int64 [n], in 0 .. samples - 1."""
        epoch, place = np.divmod(np.asarray(position, np.int64), self.samples)
        key = _mix(epoch.astype(np.uint64) * _GOLDEN)
        index = self._permute(place.astype(np.uint64), key)
        while len(outside := np.flatnonzero(index >= np.uint64(self.samples))):
            index[outside] = self._permute(index[outside], key[outside])
        return index.astype(np.int64)

    def _permute(self, x: np.ndarray, key: np.ndarray) -> np.ndarray:
        """A permutation of the whole grid for each epoch's key."""
        a, b = np.uint64(self._rows), np.uint64(self._columns)
        left, right = x // b, x % b
        for turn in range(0, 2 * _ROUNDS, 2):
            left = (left + _mix((right + self._keys[turn]) ^ key) % a) % a
            right = (right + _mix((left + self._keys[turn + 1]) ^ key) % b) % b
        return left * b + right

    def stand_in(self, position: int, attempt: int) -> int:
        """The sample to try in place of an undecodable one at `position`."""
        number = np.array([position], np.int64).view(np.uint64) * _GOLDEN + self._stand_in + np.uint64(attempt)
        return int(_mix(number)[0] % np.uint64(self.samples))
