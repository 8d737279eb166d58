"""A cache of arrays, by a description of how they were computed.

in   a description (JSON) of everything that decides the values: weights, data, views, layer, precision
out  CACHE/features/DIGEST: about.json, rows.npy, and one npy per array, mapped into memory

CACHE is $MVSSL_CACHE, else ~/.cache/mvssl. An entry is written under another name and renamed. A damaged entry counts
as missing. If the entries exceed $MVSSL_CACHE_LIMIT (GiB), the least recently used are removed, but none that this
process has mapped.
"""

import contextlib
import hashlib
import json
import math
import os
import secrets
import shutil
import tempfile
import time
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mvssl.errors import RecipeError, StorageError
from mvssl.files import cache_folder

LIMIT = 20.0  # GiB, without $MVSSL_CACHE_LIMIT
_OLD = 24 * 3600  # seconds; an older unfinished entry is of a process that was killed
_VERSION = 3  # raise it when the code computes other values for the same description
_ABOUT, _ROWS = "about.json", "rows.npy"
_IN_USE: "weakref.WeakValueDictionary[str, np.ndarray]" = weakref.WeakValueDictionary()  # by the folder of the entry


class Entry(NamedTuple):
    """Arrays [n, ...] by name, for the n samples of a source. `rows` int64 [m] are the usable samples."""

    arrays: dict[str, Tensor]
    rows: Tensor

    def __getitem__(self, name: str) -> Tensor:
        """Return the usable rows of an array, [m, ...]."""
        array = self.arrays[name]
        return array if len(self.rows) == len(array) else array[self.rows]


def digest(description: dict[str, Any]) -> str:
    """Return the name of an entry."""
    text = json.dumps([_VERSION, description], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def folder() -> Path:
    """Return the folder of the entries."""
    return cache_folder() / "features"


def limit() -> float:
    """Return the limit of all entries in GiB. Raise `RecipeError` if the variable is not such a number."""
    given = os.environ.get("MVSSL_CACHE_LIMIT") or LIMIT
    with contextlib.suppress(ValueError):
        if (number := float(given)) >= 0:
            return number
    raise RecipeError(f"MVSSL_CACHE_LIMIT={given}: expected a number of GiB, such as 200, or inf")


def find(description: dict[str, Any]) -> Entry | None:
    """Return the entry of this description, or None if it is missing or damaged."""
    place = folder() / digest(description)
    try:
        about = json.loads((place / _ABOUT).read_text())
        if any(_hash(place / file) != written for file, written in about["digests"].items()):
            return None
        entry = _open_entry(place, about["arrays"])
        os.utime(place)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return entry


def _hash(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _open_entry(place: Path, files: dict[str, str]) -> Entry:
    # copy on write: torch needs writable memory, but its writes must not reach the file
    maps = {name: np.load(place / file, mmap_mode="c", allow_pickle=False) for name, file in files.items()}
    rows = np.load(place / _ROWS, mmap_mode="c", allow_pickle=False)
    _IN_USE[str(place)] = rows  # it lives as long as its tensor
    return Entry({name: torch.from_numpy(array) for name, array in maps.items()}, torch.from_numpy(rows))


class Writer:
    """Write one entry: rows in any order, then `close`. Use a temporary folder if the cache is not writable."""

    def __init__(self, description: dict[str, Any], samples: int):
        self._description, self._samples = description, samples
        self._arrays: dict[str, np.memmap] = {}
        self._written = np.zeros(samples, dtype=bool)
        self._kept = True  # in the cache, and not in a temporary folder
        self._aside = folder() / f".{digest(description)}.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            self._aside.mkdir(parents=True)
        except OSError:
            self._aside, self._kept = _temporary(), False

    def write(self, name: str, rows: np.ndarray, values: Tensor) -> None:
        """Write `values` [k, ...] at `rows` int64 [k] of the array `name`. Raise `StorageError` if the disk is full."""
        if name not in self._arrays:
            self._arrays[name] = self._create(f"{len(self._arrays)}.npy", values)
        self._arrays[name][rows] = values.numpy()
        self._written[rows] = True

    def _create(self, file: str, like: Tensor) -> np.memmap:
        shape, kind = (self._samples, *like.shape[1:]), like.numpy().dtype
        try:
            made = np.lib.format.open_memmap(self._aside / file, mode="w+", dtype=kind, shape=shape)
            if hasattr(os, "posix_fallocate"):
                # without space reserved first, a mapped file on a full disk would kill the process
                with open(self._aside / file, "r+b") as opened:
                    os.posix_fallocate(opened.fileno(), 0, os.stat(opened.fileno()).st_size)
            return made
        except OSError as error:
            self.discard()
            size = kind.itemsize * math.prod(shape) / 2**30
            raise StorageError(
                f"{size:.1f} GiB of features do not fit into {self._aside.parent}: {error.strerror or error}; "
                "put the cache elsewhere with MVSSL_CACHE=FOLDER"
            ) from None

    def close(self) -> Entry:
        """Finish the entry and return it. Raise `StorageError` if it cannot be written."""
        try:
            for array in self._arrays.values():
                array.flush()
            np.save(self._aside / _ROWS, np.flatnonzero(self._written))
            files = {name: f"{number}.npy" for number, name in enumerate(self._arrays)}
            self._arrays.clear()
            if self._kept:
                digests = {file: _hash(self._aside / file) for file in (_ROWS, *files.values())}
                about = {"arrays": files, "digests": digests, "of": self._description}
                (self._aside / _ABOUT).write_text(json.dumps(about, indent=1, default=str))
                self._aside = _move(self._aside, folder() / digest(self._description))
            entry = _open_entry(self._aside, files)
        except OSError as error:
            self.discard()
            raise StorageError(
                f"features cannot be written to {self._aside.parent}: {error.strerror or error}"
            ) from error
        if not self._kept:
            self.discard()  # mapped files stay readable after they are removed
        return entry

    def discard(self) -> None:
        """Remove what was written."""
        self._arrays.clear()
        shutil.rmtree(self._aside, ignore_errors=True)


def _temporary() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="mvssl-"))
    except OSError as error:
        raise StorageError(
            f"neither {folder()} nor a temporary folder can be written: {error.strerror or error}"
        ) from None


def _move(aside: Path, place: Path) -> Path:
    """Rename the entry to its place. An entry there, damaged or of another process, is removed."""
    with contextlib.suppress(FileNotFoundError):
        old = place.with_name(f".old-{place.name}.{secrets.token_hex(4)}")
        place.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    aside.rename(place)
    return place


def entries() -> list[tuple[float, int, Path]]:
    """Return the last use, the bytes and the folder of every entry, the most recent first."""
    listed = []
    for place in folder().glob("[0-9a-f]*"):
        with contextlib.suppress(OSError):
            size = sum(file.stat().st_size for file in place.iterdir())
            listed.append((place.stat().st_mtime, size, place))
    return sorted(listed, reverse=True)


def evict() -> float:
    """Remove entries beyond the limit, but none in use. Return the GiB by which entries in use exceed it."""
    for unfinished in folder().glob(".*"):
        with contextlib.suppress(OSError):
            if time.time() - unfinished.stat().st_mtime > _OLD:
                shutil.rmtree(unfinished, ignore_errors=True)
    most, listed = limit() * 2**30, entries()
    in_use = total = sum(size for _, size, place in listed if str(place) in _IN_USE)
    for _, size, place in listed:
        if str(place) not in _IN_USE:
            total += size
            if total > most:
                shutil.rmtree(place, ignore_errors=True)
    return max(0.0, in_use - most) / 2**30
