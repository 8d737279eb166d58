"""Which samples a shard holds, and where.

in   the path of a tar in webdataset's convention
out  `Index`: key, and offset and size of each field, per sample; kept in a small npz beside the shard or in the cache

The key of a member is its path up to the first dot of the file name, the field is the rest in lower case:
`a/0001.rgb.jpg` is field `rgb.jpg` of sample `a/0001`. Members of a sample stand next to each other.
Format: https://github.com/webdataset/webdataset.
"""

import contextlib
import hashlib
import os
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mvssl.data.progress import track
from mvssl.data.tar import Archive
from mvssl.errors import DataError
from mvssl.words import counted

_VERSION = 2
_TOLD, _BYTES = 16, 4096  # samples of a shard that its digest reads, and bytes of each of their fields
_META = re.compile(r"__[^/]*__($|/)")  # webdataset passes over these too


class Index(NamedTuple):
    """The samples of one shard: n samples, f fields."""

    path: Path
    keys: np.ndarray  # bytes [n], UTF-8
    fields: list[str]
    offsets: np.ndarray  # int64 [n, f], of the body in the file
    sizes: np.ndarray  # int64 [n, f], bytes; -1 where a sample lacks the field
    digest: str  # of all headers, and of some of the bodies
    ignored: int  # members that are no sample's: hidden files, files without extension, __meta__
    stat: tuple[int, int]  # size and mtime_ns of the shard


def split_name(name: str) -> tuple[str, str] | None:
    """Key and field of a member; None for a member that belongs to no sample."""
    name = name.removeprefix("./")
    folder, slash, base = name.rpartition("/")
    key, _, field = base.partition(".")
    if not key or not field or _META.match(name):
        return None
    return folder + slash + key, field.lower()


def scan(path: Path) -> Index:
    """Read every header of the shard at `path`. Raises `DataError` where it is damaged or holds no sample."""
    keys, fields, ignored = [], {}, 0
    samples: list[dict[int, tuple[int, int]]] = []
    seen = set()
    stat = _stat(path)
    archive = Archive(path)
    for member in archive:
        parts = split_name(member.name)
        if parts is None:
            ignored += 1
            continue
        key, field = parts
        if not keys or key != keys[-1]:
            if key in seen:
                raise DataError(f"shard {path}: key {key!r} comes up again; the files of a sample must stand together")
            seen.add(key)
            keys.append(key)
            samples.append({})
        number = fields.setdefault(field, len(fields))
        if number in samples[-1]:
            raise DataError(f"shard {path}: sample {key!r} has the field {field!r} twice")
        samples[-1][number] = (member.offset, member.size)
    if not keys:
        others = f", and {counted(ignored, 'member')} that belong to none" if ignored else ""
        raise DataError(f"shard {path} holds no samples{others}")
    table = np.full((len(keys), len(fields), 2), -1, np.int64)
    for row, sample in zip(table, samples, strict=True):
        for number, place in sample.items():
            row[number] = place
    raw = np.array([key.encode() for key in keys])
    offsets, sizes = np.ascontiguousarray(table[..., 0]), np.ascontiguousarray(table[..., 1])
    digest = _digest(path, archive.digest, offsets, sizes)
    return Index(path, raw, list(fields), offsets, sizes, digest, ignored, stat)


def _digest(path: Path, headers: str, offsets: np.ndarray, sizes: np.ndarray) -> str:
    """Headers alone do not tell data apart: samples of one shape, written with one time, have equal ones.

    So the middle of each field of a few samples, evenly spaced, counts too. Images often begin with a blank margin.
    """
    told = hashlib.blake2b(headers.encode(), digest_size=16)
    rows = np.unique(np.linspace(0, len(sizes) - 1, _TOLD).astype(np.int64))
    with open(path, "rb") as file:
        for offset, size in zip(offsets[rows].ravel().tolist(), sizes[rows].ravel().tolist(), strict=True):
            if size > 0:
                told.update(os.pread(file.fileno(), _BYTES, offset + max(0, size - _BYTES) // 2)[:size])
    return told.hexdigest()


def build(paths: list[Path], progress: bool = True) -> list[Index]:
    """The index of each shard, from its cache where that is fresh. Raises `DataError` with every damaged shard."""
    with ThreadPoolExecutor(min(16, len(paths) or 1)) as pool:
        found = list(track(pool.map(_attempt, paths), "indexing shards", len(paths), progress))
    faults = [str(one) for one in found if isinstance(one, DataError)]
    if faults:
        more = [f"... and {len(faults) - 10} more"] if len(faults) > 10 else []
        raise DataError("\n".join(faults[:10] + more))
    return [one for one in found if isinstance(one, Index)]


def _attempt(path: Path) -> Index | DataError:
    try:
        return load(path)
    except DataError as error:
        return error


def load(path: Path) -> Index:
    """The index of one shard, cached. Raises `DataError`."""
    for cache in _caches(path):
        index = _read(cache, path)
        if index is not None:
            return index
    index = scan(path)
    for cache in _caches(path):
        if _write(cache, index):
            break
    return index


def cache_folder() -> Path:
    """Where mvssl keeps what it can make again: $MVSSL_CACHE, else ~/.cache/mvssl."""
    return Path(os.environ.get("MVSSL_CACHE") or Path.home() / ".cache" / "mvssl")


def _caches(path: Path) -> list[Path]:
    """Beside the shard first, unless $MVSSL_CACHE says otherwise. Hidden, so that a glob `*` passes over it."""
    whole = path.resolve()
    name = hashlib.blake2b(os.fsencode(whole), digest_size=16).hexdigest()
    central = cache_folder() / "index" / f"{name}.npz"
    return [central] if os.environ.get("MVSSL_CACHE") else [whole.with_name(f".{whole.name}.mvssl.npz"), central]


def _stat(path: Path) -> tuple[int, int]:
    try:
        stat = os.stat(path)
    except OSError as error:
        raise DataError(f"shard {path} cannot be opened: {error.strerror}") from None
    return stat.st_size, stat.st_mtime_ns


def _read(cache: Path, path: Path) -> Index | None:
    """The cached index; None where there is none, it is damaged, or the shard has changed since."""
    stat = _stat(path)
    try:
        with open(cache, "rb") as file, np.load(file, allow_pickle=False) as saved:
            if saved["stamp"].tolist() != [_VERSION, *stat]:
                return None
            offsets, sizes = saved["offsets"], saved["sizes"]
            fields, digest = saved["fields"].tolist(), str(saved["digest"])
            index = Index(path, saved["keys"], fields, offsets, sizes, digest, int(saved["ignored"]), stat)
            fits = offsets.shape == sizes.shape == (len(index.keys), len(fields))
            return index if fits and (offsets + sizes <= stat[0]).all() else None
    except Exception:  # a damaged file fails in many ways, and is made again in any case
        return None


def _write(cache: Path, index: Index) -> bool:
    """Save aside and rename, so that processes that build the same index at once do not harm each other."""
    aside = cache.with_name(f"{cache.name}.{os.getpid()}.{secrets.token_hex(4)}")
    stamp = np.array([_VERSION, *index.stat], np.int64)
    fields = np.array(index.fields, dtype=np.str_)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "wb") as file:
            np.savez(
                file, stamp=stamp, fields=fields, digest=index.digest, ignored=index.ignored,
                keys=index.keys, offsets=index.offsets, sizes=index.sizes,
            )  # fmt: skip
        os.replace(aside, cache)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        return False
    return True
