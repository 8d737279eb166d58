"""Images made on the spot, so that a benchmark needs no data.

in   a size and a number of samples
out  a map-style dataset of bytes; shards of JPEG files about as large as photographs of that size
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from mvssl.data.packing.samples import PackSplit
from mvssl.data.packing.shard_writer import write_split

BLOCK = 8  # pixels of one random colour, before it is smoothed
GRAIN = 4.0  # standard deviation of the noise; with it a JPEG of 341x256 pixels has about 32 kB, as a photograph
DIFFERENT = 64  # images that are made; samples repeat them


class RandomImages:
    """A map-style dataset of `samples` colour images [3, height, width] of random bytes."""

    def __init__(self, height: int, width: int, samples: int):
        self.images = np.random.default_rng(0).integers(256, size=(DIFFERENT, 3, height, width), dtype=np.uint8)
        self.samples, self.fingerprint = samples, f"random images of {height}x{width} pixels"

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, i: int) -> dict[str, np.ndarray]:
        return {"image": self.images[i % DIFFERENT]}


def make_photograph(seed: int, height: int, width: int) -> np.ndarray:
    """Return uint8 [height, width, 3]: smooth colours with some noise, which a JPEG holds in as many bytes."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(256, size=(-(-height // BLOCK), -(-width // BLOCK), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return (smooth + rng.normal(0, GRAIN, smooth.shape)).clip(0, 255).astype(np.uint8)


def make_jpeg(seed: int, height: int, width: int) -> bytes:
    """Return a photograph as a JPEG of quality 90."""
    content = io.BytesIO()
    Image.fromarray(make_photograph(seed, height, width)).save(content, "JPEG", quality=90)
    return content.getvalue()


def write_jpeg_shards(folder: Path, samples: int, height: int = 256, width: int = 341, per_shard: int = 1000) -> None:
    """Write shards with a field `jpg` to `folder`, which must exist and be empty."""
    files = [{"jpg": make_jpeg(seed, height, width)} for seed in range(min(samples, DIFFERENT))]
    write_repeated(folder, files, samples, per_shard)


def write_repeated(folder: Path, files: list[dict[str, bytes]], samples: int, per_shard: int = 1000) -> None:
    """Write shards of `samples` samples, which repeat those in `files`, to `folder`, which must exist and be empty."""
    split = PackSplit(samples, lambda i: files[i % len(files)])
    write_split(split, np.arange(samples), folder, seed=0, per_shard=per_shard, progress=False)
