"""Damaged copies of sound bytes."""

import io
from collections.abc import Iterator

import numpy as np

MUTATED = 150  # inputs that are made of each sound one by damaging its bytes


def damaged(sound: bytes, seed: int) -> Iterator[bytes]:
    """Flipped bits, other bytes, cuts, repeats and runs of zeros, and integers that are too large."""
    draw = np.random.default_rng(seed)
    for _ in range(MUTATED):
        data, place = bytearray(sound), int(draw.integers(len(sound)))
        match draw.integers(6):
            case 0:
                data[place] ^= 1 << draw.integers(8)
            case 1:
                data[place : place + 4] = draw.bytes(4)
            case 2:
                del data[place:]
            case 3:
                data[place:place] = data[place : place + 64]
            case 4:
                data[place : place + 32] = bytes(32)
            case 5:
                data[place : place + 8] = (2 ** int(draw.integers(64)) - 1).to_bytes(8, "little")
        yield bytes(data)


def npz(save=np.savez, **arrays) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()
