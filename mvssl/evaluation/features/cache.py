"""Arrays kept by what they were made from, so that what was computed once is read the next time.

in   a description (JSON) of all that decides the values: weights, data, views, layer, precision
out  CACHE/features/DIGEST: about.json, rows.npy, and one npy per array, mapped into memory and not read whole

CACHE is $MVSSL_CACHE, else ~/.cache/mvssl. An entry is written aside and renamed; a damaged one counts as absent. Where
entries together exceed $MVSSL_CACHE_LIMIT (GiB), those not used for longest go, but none that this process has mapped.
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

LIMIT = 20.0  # GiB, where $MVSSL_CACHE_LIMIT does not say
_DEBRIS = 24 * 3600  # seconds
_VERSION = 3  # counts up when the code gives other values for the same description
_ABOUT, _ROWS = "about.json", "rows.npy"
_HELD: "weakref.WeakValueDictionary[str, np.ndarray]" = weakref.WeakValueDictionary()  # entries in use, by their folder


class Entry(NamedTuple):
    """Arrays [n, ...] by name, n samples of a source; `rows` int64 [m] are those that could be used."""

    arrays: dict[str, Tensor]
    rows: Tensor

    def __getitem__(self, name: str) -> Tensor:
        """The usable rows of an array, [m, ...]."""
        whole = self.arrays[name]
        return whole if len(self.rows) == len(whole) else whole[self.rows]


def digest(description: dict[str, Any]) -> str:
    """One name for what decides an entry's values."""
    text = json.dumps([_VERSION, description], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def folder() -> Path:
    """Where entries lie."""
    return cache_folder() / "features"


def limit() -> float:
    """GiB that entries may take together. Raises `RecipeError` where $MVSSL_CACHE_LIMIT is no number."""
    given = os.environ.get("MVSSL_CACHE_LIMIT") or LIMIT
    with contextlib.suppress(ValueError):
        if (number := float(given)) >= 0:
            return number
    raise RecipeError(f"MVSSL_CACHE_LIMIT={given}: GiB are asked for, such as 200, or inf")


def find(description: dict[str, Any]) -> Entry | None:
    """The entry of this description, or None where there is none that is whole."""
    place = folder() / digest(description)
    try:
        about = json.loads((place / _ABOUT).read_text())
        if not _whole(place, about):
            return None
        found = _entry(place, about["arrays"])
        os.utime(place)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return found


def _whole(place: Path, about: dict[str, Any]) -> bool:
    return all(_hash(place / file) == told for file, told in about["digests"].items())


def _hash(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _entry(place: Path, files: dict[str, str]) -> Entry:
    rows = _mapped(place / _ROWS)
    _HELD[str(place)] = rows  # which lives as long as the tensor over it
    return Entry(
        {name: torch.from_numpy(_mapped(place / file)) for name, file in files.items()}, torch.from_numpy(rows)
    )


def _mapped(file: Path) -> np.ndarray:
    # copy on write: torch specs memory that it may write, and what it writes must not reach the file
    return np.load(file, mmap_mode="c", allow_pickle=False)


class Writer:
    """Fills one entry: rows in any order, then `close`. A temporary folder serves where the cache cannot be written."""

    def __init__(self, description: dict[str, Any], samples: int):
        self._description, self._samples = description, samples
        self._arrays: dict[str, np.memmap] = {}
        self._seen = np.zeros(samples, dtype=bool)
        self._kept = True  # in the cache, and not for this process alone
        self._aside = folder() / f".{digest(description)}.{os.getpid()}.{secrets.token_hex(4)}"
        try:
            self._aside.mkdir(parents=True)
        except OSError:
            self._aside, self._kept = _temporary(), False

    def write(self, name: str, rows: np.ndarray, values: Tensor) -> None:
        """Put `values` [k, ...] on the CPU at `rows` int64 [k] of the array `name`. Raises `StorageError`."""
        if name not in self._arrays:
            self._arrays[name] = self._create(f"{len(self._arrays)}.npy", values)
        self._arrays[name][rows] = values.numpy()
        self._seen[rows] = True

    def _create(self, file: str, like: Tensor) -> np.memmap:
        shape, kind = (self._samples, *like.shape[1:]), like.numpy().dtype
        try:
            made = np.lib.format.open_memmap(self._aside / file, mode="w+", dtype=kind, shape=shape)
            if hasattr(os, "posix_fallocate"):
                # a mapped file that outgrows the disk ends the process; one whose place is taken beforehand does not
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
        """The finished entry, in its place. Raises `StorageError`."""
        try:
            for array in self._arrays.values():
                array.flush()
            np.save(self._aside / _ROWS, np.flatnonzero(self._seen))
            files = {name: f"{number}.npy" for number, name in enumerate(self._arrays)}
            self._arrays.clear()
            if self._kept:
                digests = {file: _hash(self._aside / file) for file in (_ROWS, *files.values())}
                about = {"arrays": files, "digests": digests, "of": self._description}
                (self._aside / _ABOUT).write_text(json.dumps(about, indent=1, default=str))
                self._aside = _placed(self._aside, folder() / digest(self._description))
            found = _entry(self._aside, files)
        except OSError as error:
            self.discard()
            raise StorageError(
                f"features cannot be written to {self._aside.parent}: {error.strerror or error}"
            ) from error
        if not self._kept:
            self.discard()  # what is mapped stays readable until it is let go
        return found

    def discard(self) -> None:
        """Leave nothing behind."""
        self._arrays.clear()
        shutil.rmtree(self._aside, ignore_errors=True)


def _temporary() -> Path:
    try:
        return Path(tempfile.mkdtemp(prefix="mvssl-"))
    except OSError as error:
        raise StorageError(
            f"neither {folder()} nor a temporary folder can be written: {error.strerror or error}"
        ) from None


def _placed(aside: Path, place: Path) -> Path:
    """Rename, in place of a damaged entry or of another process's of the same description."""
    with contextlib.suppress(FileNotFoundError):
        old = place.with_name(f".old-{place.name}.{secrets.token_hex(4)}")
        place.rename(old)
        shutil.rmtree(old, ignore_errors=True)
    aside.rename(place)
    return place


def entries() -> list[tuple[float, int, Path]]:
    """When last used, bytes and folder of every entry, the newest first."""
    found = []
    for place in folder().glob("[0-9a-f]*"):
        with contextlib.suppress(OSError):
            size = sum(file.stat().st_size for file in place.iterdir())
            found.append((place.stat().st_mtime, size, place))
    return sorted(found, reverse=True)


def evict() -> float:
    """Remove the entries beyond the limit, but none in use; GiB by which those alone exceed it."""
    for debris in folder().glob(".*"):
        with contextlib.suppress(OSError):
            if time.time() - debris.stat().st_mtime > _DEBRIS:  # of a process that was killed
                shutil.rmtree(debris, ignore_errors=True)
    most, found = limit() * 2**30, entries()
    held = total = sum(size for _, size, place in found if str(place) in _HELD)
    for _, size, place in found:
        if str(place) not in _HELD:
            total += size
            if total > most:
                shutil.rmtree(place, ignore_errors=True)
    return max(0.0, held - most) / 2**30
