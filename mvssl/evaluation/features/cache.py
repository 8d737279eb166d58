"""A cache of arrays, by a description of how they were computed.

in   a description (JSON) of everything that decides the values: weights, data, views, layer, precision
out  CACHE/features/DIGEST: about.json, rows.npy, and one npy per array, mapped into memory

CACHE is $MVSSL_CACHE, else ~/.cache/mvssl. An entry is written under another name and renamed. A damaged entry counts
as missing. If the entries exceed $MVSSL_CACHE_LIMIT (GiB), the least recently used are removed, but none that this
process has mapped.
"""

import contextlib
import json
import math
import os
import tempfile
import time
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mvssl.errors import RecipeError, StorageError
from mvssl.files import cache_folder, hash_bytes, hash_file, name_beside, remove, replace_path, write_errors

LIMIT = 20.0  # GiB, without $MVSSL_CACHE_LIMIT
_OLD = 24 * 3600  # seconds; an older unfinished entry is of a process that was killed
_VERSION = 4  # raise it when the code computes other values for the same description
_ABOUT, _ROWS = "about.json", "rows.npy"
_IN_USE: "weakref.WeakValueDictionary[Path, np.ndarray]" = weakref.WeakValueDictionary()  # by the folder of the entry


class CachedFeatures(NamedTuple):
    """Arrays [n, ...] by name, for the n samples of a source. `rows` int64 [m] are the usable samples."""

    arrays: dict[str, Tensor]
    rows: Tensor

    def __getitem__(self, name: str) -> Tensor:
        """Return the usable rows of an array, [m, ...]."""
        array = self.arrays[name]
        return array if len(self.rows) == len(array) else array[self.rows]


def folder() -> Path:
    """Return the folder of the entries."""
    return cache_folder() / "features"


def name_entry(description: dict[str, Any]) -> str:
    """Return the name of an entry, a digest of its description."""
    return hash_bytes(json.dumps([_VERSION, description], sort_keys=True, default=str).encode())[:32]


def read_limit() -> float:
    """Return the limit of all entries in GiB. Raise `RecipeError` if the variable is not such a number."""
    given = os.environ.get("MVSSL_CACHE_LIMIT") or LIMIT
    with contextlib.suppress(ValueError):
        if (number := float(given)) >= 0:
            return number
    raise RecipeError(f"MVSSL_CACHE_LIMIT={given}: expected a number of GiB, such as 200, or inf")


def read_entry(description: dict[str, Any]) -> CachedFeatures | None:
    """Return the entry of this description, or None if it is missing or damaged."""
    place = folder() / name_entry(description)
    try:
        about = json.loads((place / _ABOUT).read_text())
        if any(hash_file(place / file) != digest for file, digest in about["digests"].items()):
            return None
        entry = _map_entry(place, about["arrays"])
        os.utime(place)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return entry


def _map_entry(place: Path, files: dict[str, str]) -> CachedFeatures:
    # copy on write: torch needs writable memory, but its writes must not reach the file
    maps = {name: np.load(place / file, mmap_mode="c", allow_pickle=False) for name, file in files.items()}
    _IN_USE[place] = rows = np.load(place / _ROWS, mmap_mode="c", allow_pickle=False)  # lives as long as its tensor
    return CachedFeatures({name: torch.from_numpy(array) for name, array in maps.items()}, torch.from_numpy(rows))


class Writer:
    """Write one entry: rows in any order, then `close`. Use a temporary folder if the cache is not writable.

    As a context manager it leaves nothing behind if `close` was not called.
    """

    def __init__(self, description: dict[str, Any], samples: int):
        self._description = description
        self._arrays: dict[str, np.memmap] = {}
        self._written = np.zeros(samples, dtype=bool)
        self._place = folder() / name_entry(description)
        self._beside, self._temporary = name_beside(self._place), False
        try:
            self._beside.mkdir(parents=True)
        except OSError:
            with write_errors(f"{folder()} and the folder of temporary files"):
                self._beside, self._temporary = Path(tempfile.mkdtemp(prefix="mvssl-")), True

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._arrays.clear()
        remove(self._beside)

    def write(self, name: str, rows: np.ndarray, values: np.ndarray) -> None:
        """Write `values` [k, ...] at `rows` int64 [k] of the array `name`. Raise `StorageError` if the disk is full."""
        if name not in self._arrays:
            self._arrays[name] = self._create(f"{len(self._arrays)}.npy", values)
        self._arrays[name][rows] = values
        self._written[rows] = True

    def _create(self, file: str, like: np.ndarray) -> np.memmap:
        shape = len(self._written), *like.shape[1:]
        size = like.itemsize * math.prod(shape) / 2**30
        with self._errors(f"{size:.1f} GiB of features do not fit"):
            array = np.lib.format.open_memmap(self._beside / file, mode="w+", dtype=like.dtype, shape=shape)
            if hasattr(os, "posix_fallocate"):
                # without space reserved first, a mapped file on a full disk would kill the process
                with open(self._beside / file, "r+b") as opened:
                    os.posix_fallocate(opened.fileno(), 0, os.stat(opened.fileno()).st_size)
            return array

    def close(self) -> CachedFeatures:
        """Finish the entry and return it. Raise `StorageError` if it cannot be written."""
        files = {name: f"{number}.npy" for number, name in enumerate(self._arrays)}
        with self._errors("the features are lost"):
            for array in self._arrays.values():
                array.flush()
            self._arrays.clear()
            np.save(self._beside / _ROWS, np.flatnonzero(self._written))
            if self._temporary:
                return _map_entry(self._beside, files)  # mapped files stay readable after they are removed
            digests = {file: hash_file(self._beside / file) for file in (_ROWS, *files.values())}
            about = {"arrays": files, "digests": digests, "of": self._description}
            (self._beside / _ABOUT).write_text(json.dumps(about, indent=1, default=str))
            replace_path(self._beside, self._place)  # an entry there is damaged, or of another process
            return _map_entry(self._place, files)

    def _errors(self, problem: str) -> contextlib.AbstractContextManager[None]:
        hint = f"; {problem}; put the cache elsewhere with MVSSL_CACHE=FOLDER"
        return write_errors(self._beside.parent, StorageError, hint)


def list_entries() -> list[tuple[float, int, Path]]:
    """Return the last use, the bytes and the folder of every entry, the most recent first."""
    listed = []
    for place in folder().glob("[0-9a-f]*"):
        with contextlib.suppress(OSError):
            size = sum(file.stat().st_size for file in place.iterdir())
            listed.append((place.stat().st_mtime, size, place))
    return sorted(listed, reverse=True)


def evict_entries() -> float:
    """Remove entries beyond the limit, but none in use. Return the GiB by which entries in use exceed it."""
    for unfinished in folder().glob(".*"):
        with contextlib.suppress(OSError):
            if time.time() - unfinished.stat().st_mtime > _OLD:
                remove(unfinished)
    most, listed = read_limit() * 2**30, list_entries()
    in_use = total = sum(size for _, size, place in listed if place in _IN_USE)
    for _, size, place in listed:
        if place not in _IN_USE:
            total += size
            if total > most:
                remove(place)
    return max(0.0, in_use - most) / 2**30
