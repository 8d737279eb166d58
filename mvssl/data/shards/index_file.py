"""An index on the disk, believed only where it belongs to its shard.

in   an `Index`, or a file that somebody may have damaged, made by hand, or put beside another shard
out  a small npz beside the shard or in the cache folder; the index again, or None

What a file claims is held against the shard itself. Its members, and what it says lies between them, must fill the
shard to its end mark without gap or overlap; the headers of some members must name them. Whatever is read later, its
header is looked at again (`mvssl.data.shards.reading`). So a wrong index is made anew, and never yields a wrong body.
"""

import contextlib
import hashlib
import io
import os
import re
import secrets
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from mvssl.data.decoding.arrays import read_npy
from mvssl.data.shards.opening import Stamp, open_shard, read
from mvssl.data.shards.reading import Place, is_named
from mvssl.data.shards.scan import MOST_FIELDS, Index, gaps, split_name
from mvssl.data.shards.tar import BLOCK, Archive, padded
from mvssl.errors import DataError, OutputError
from mvssl.files import cache_folder

_VERSION = 3
_HASH = re.compile("[0-9a-f]{32}")
_LOOKS = 16  # members of samples, and gaps between them, that are held against the index when it is read
_ARRAYS = {  # name -> kinds of its numbers, dimensions
    "stamp": ("i8", 1),
    "keys": ("S", 1),
    "fields": ("S", 1),
    "offsets": ("i8", 2),
    "sizes": ("i8", 2),
    "headers": ("u2", 2),
    "others": ("i8", 2),
    "archive": ("S", 0),
    "digest": ("S", 0),
    "ignored": ("i8", 0),
}


def places(path: Path) -> list[Path]:
    """Where the index of a shard may lie: beside it first, unless $MVSSL_CACHE says otherwise.

    Hidden, so that a glob `*` passes over it.
    """
    whole = path.resolve()
    name = hashlib.blake2b(os.fsencode(whole), digest_size=16).hexdigest()
    found = [] if os.environ.get("MVSSL_CACHE") else [whole.with_name(f".{whole.name}.mvssl.npz")]
    with contextlib.suppress(OutputError):  # an index can be made each time
        found.append(cache_folder() / "index" / f"{name}.npz")
    return found


def read_file(cache: Path, path: Path, shard_size: int) -> Index | None:
    """The index that a file holds; None where there is none, or it is damaged, too large or of another version.

    Whether it is that of the shard as it stands now, its stamp and `belongs` say.
    """
    try:
        with open(cache, "rb") as file:
            # a row has up to MOST_FIELDS places of 22 bytes, and belongs to at least two blocks of the shard
            limit = min(1 << 30, (1 << 20) + shard_size // (2 * BLOCK) * (22 * MOST_FIELDS))
            data = file.read(limit + 1)
        if len(data) > limit:
            return None
        return _unpacked(data, path)
    except Exception:  # a damaged file fails in many ways, and is made again in any case
        return None


def _unpacked(data: bytes, path: Path) -> Index | None:
    """The index in the bytes of a file. Raises whatever zipfile and numpy raise on damaged ones."""
    with zipfile.ZipFile(io.BytesIO(data)) as saved:
        entries = {entry.filename.removesuffix(".npy"): entry for entry in saved.infolist()[:20]}
        if set(entries) - {"digests"} != set(_ARRAYS):
            return None
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            return None  # so that what is read is no larger than the file
        arrays = {name: read_npy(saved.read(entry)) for name, entry in entries.items()}
    kinds = _ARRAYS | {"digests": ("u4", 2)}
    for name, array in arrays.items():
        kind, dimensions = kinds[name]
        if array.ndim != dimensions or array.dtype.str.lstrip("<|")[: len(kind)] != kind:
            return None
    version, *stamp = arrays["stamp"].tolist()
    if version != _VERSION:
        return None
    fields = [field.decode() for field in arrays["fields"].tolist()]
    archive, digest = (arrays[name].item().decode("ascii") for name in ("archive", "digest"))
    if not (_HASH.fullmatch(archive) and _HASH.fullmatch(digest)):
        return None
    ignored = arrays["ignored"].item()
    return Index(
        path, arrays["keys"], fields, arrays["offsets"], arrays["sizes"], arrays["headers"], arrays["others"],
        archive, digest, ignored, Stamp(*stamp), arrays.get("digests"),
    )  # fmt: skip


def belongs(index: Index) -> bool:
    """Whether the index is sound in itself, fills the shard, and some headers of the shard agree with it."""
    if not _sound(index):
        return False
    try:
        descriptor = open_shard(index.path)
        try:
            return _agrees(index, descriptor)
        finally:
            os.close(descriptor)
    except DataError:
        return False


def _sound(index: Index) -> bool:
    """What can be said without the shard."""
    shape, there, size = (len(index.keys), len(index.fields)), index.sizes >= 0, index.stamp.size
    tables = [index.offsets, index.sizes, index.headers, *([] if index.digests is None else [index.digests])]
    if any(table.shape != shape for table in tables) or 0 in shape or index.others.shape[1] != 2:
        return False
    if not there.any(1).all() or len(set(index.fields)) < shape[1] or len(set(index.keys.tolist())) < shape[0]:
        return False
    offsets, sizes, headers = index.offsets[there], index.sizes[there], index.headers[there].astype(np.int64)
    if sizes.max() > size or offsets.min() < 0 or offsets.max() > size or (offsets % BLOCK).any():
        return False
    if headers.min() < 1 or (index.others < 0).any() or (index.others > size).any():
        return False
    try:
        b"\n".join(index.keys.tolist()).decode()
    except UnicodeDecodeError:
        return False
    begins, ends = offsets - headers * BLOCK, offsets + padded(sizes)
    order = np.argsort(begins, kind="stable")
    rows = np.nonzero(there)[0][order]
    in_order = (np.diff(rows) >= 0).all() and (begins[order][1:] >= ends[order][:-1]).all() and begins[order][0] >= 0
    return bool(in_order) and np.array_equal(gaps(index.offsets, index.sizes, index.headers, _end(index)), index.others)


def _end(index: Index) -> int:
    """Where the last member ends."""
    last = index.others[-1, 1] if len(index.others) else 0
    there = index.sizes >= 0
    return int(max(last, (index.offsets[there] + padded(index.sizes[there])).max()))


def _agrees(index: Index, descriptor: int) -> bool:
    """Whether the end mark stands where it must, some members are who they are, and others belong to no sample.

    Raises `DataError` where the shard is damaged there.
    """
    archive = Archive(index.path, descriptor)
    archive.check_end(_end(index))
    for row, column in _spread(np.argwhere(index.sizes >= 0)):
        offset, size, blocks = (int(table[row, column]) for table in (index.offsets, index.sizes, index.headers))
        headers = read(index.path, descriptor, blocks * BLOCK, offset - blocks * BLOCK)
        place = Place(bytes(index.keys[row]), index.fields[column], offset, size, blocks, None)
        if not is_named(index.path, descriptor, place, headers):
            return False
    parts = [archive.between(start, stop, _LOOKS) for start, stop in _spread(index.others)]
    rest = [member for part in parts for member in part]
    seen_all = len(index.others) <= _LOOKS and all(len(part) < _LOOKS for part in parts)
    counted = len(rest) == index.ignored if seen_all else len(rest) <= index.ignored
    return counted and all(split_name(member.name) is None for member in rest)


def _spread(places: np.ndarray) -> list[list[int]]:
    """At most `_LOOKS` of [k, 2], from the first to the last."""
    return places[np.linspace(0, len(places) - 1, min(_LOOKS, len(places))).astype(np.int64)].tolist()


def write_file(cache: Path, index: Index) -> bool:
    """Save aside and rename, so that processes that build the same index at once do not harm each other."""
    aside = cache.with_name(f"{cache.name}.{os.getpid()}.{secrets.token_hex(4)}")
    arrays: dict[str, Any] = {
        "stamp": np.array([_VERSION, *index.stamp], np.int64),
        "keys": index.keys,
        "fields": np.array([field.encode() for field in index.fields]),
        "offsets": index.offsets,
        "sizes": index.sizes,
        "headers": index.headers,
        "others": index.others,
        "archive": np.array(index.archive.encode()),
        "digest": np.array(index.digest.encode()),
        "ignored": np.array(index.ignored, np.int64),
    }
    if index.digests is not None:
        arrays["digests"] = index.digests
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "wb") as file:
            np.savez(file, **arrays)
        os.replace(aside, cache)
    except OSError:
        with contextlib.suppress(OSError):
            aside.unlink()
        return False
    return True
