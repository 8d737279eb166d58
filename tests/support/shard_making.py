"""Small shards made by hand, member by member, so that they can also be wrong."""

import io
import os
import tarfile
import wave
from pathlib import Path

import numpy as np
from PIL import Image

from mvssl.data import open_shards
from mvssl.recipe import Column


def image_bytes(array: np.ndarray, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, format, **options)
    return file.getvalue()


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (8, 8, 3), np.uint8)


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]], format: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def write_digits(folder: Path, counts: list[int]) -> list[Path]:
    """Shards whose i-th sample over all holds the number i as cls and an image of i's seed as png."""
    paths, number = [], 0
    for shard, count in enumerate(counts):
        members = []
        for i in range(number, number + count):
            members += [(f"{i:04d}.png", image_bytes(pixels(i, 4, 4))), (f"{i:04d}.cls", str(i).encode())]
        paths.append(write_tar(folder / f"{shard:06d}.tar", members))
        number += count
    return paths


def replace_field(path: Path, name: str, content: bytes | None) -> None:
    """Rewrite a shard with one member's content replaced, or the member left out."""
    with tarfile.open(path) as archive:
        members = [(m.name, archive.extractfile(m).read()) for m in archive.getmembers()]  # pyright: ignore
    assert name in dict(members)
    kept = [(n, content if n == name else old) for n, old in members if not (n == name and content is None)]
    write_tar(path, kept)


def members(path: Path) -> list[tuple[str, str, int, int]]:
    """Key, field, place and size of every body, as the standard library sees them."""
    with tarfile.open(path) as archive:
        return [(*m.name.split(".", 1), m.offset_data, m.size) for m in archive.getmembers()]


def flip(path: Path, place: int, bit: int = 0) -> None:
    """Change one bit of a file, and put its times back."""
    before, data = os.stat(path), bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    with open(path, "r+b") as file:  # in place: another file would have another inode
        file.write(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def put(root: Path, *names: str, content: bytes | None = None) -> Path:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(image_bytes(pixels(i)) if content is None else content)
    return root


def pcm(width: int, channels: int = 1, t: int = 50, rate: int = 8000) -> tuple[bytes, np.ndarray]:
    """A PCM file as Python's own `wave` writes it, and the integers in it [c, t]."""
    high = 1 << (8 * width - 1)
    values = np.random.default_rng(width).integers(-high, high, (t, channels))
    values[0], values[1] = -high, high - 1
    raw = b"".join(int(v + high * (width == 1)).to_bytes(width, "little", signed=width > 1) for v in values.flat)
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(raw)
    return file.getvalue(), values.T


def read_split(folder: Path, split: str = "train", **fields: str) -> list[dict[str, np.ndarray]]:
    """All samples of the shards in FOLDER/SPLIT, with a column for each field."""
    columns = {name: Column(field=field) for name, field in fields.items()}
    source = open_shards(f"{split}/*.tar", folder, columns, missing="mask")
    return [source[i] for i in range(len(source))]


def labels_of(folder: Path, split: str) -> list[int]:
    """Return the class numbers of a packed split, in order."""
    return [int(sample["label"]) for sample in read_split(folder, split, label="cls")]


def image_folder(root: Path, files: dict[str, np.ndarray]) -> Path:
    """Write images below `root`, by their relative path; return `root`."""
    for name, array in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(root / name)
    return root
