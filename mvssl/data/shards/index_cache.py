"""Indexes of shards, kept on the disk. A kept index is used only if it belongs to its shard.

in   paths of shards
out  an `Index` of each; small npz files beside the shards or in the cache folder

An index file may be damaged, made by hand, or put beside another shard. So what it says is checked against the shard
itself: its members, and the gaps between them, must fill the shard up to its end mark without overlap, and the headers
of some members must name them. The header of a body that is read later is checked too (`FieldReader`). So a wrong
index is rebuilt, and cannot yield a wrong body.
"""

import contextlib
import hashlib
import io
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from mvssl.data.decoding.arrays import read_npy
from mvssl.data.order import spread_indices
from mvssl.data.shards.field_reader import FieldLocation, header_matches
from mvssl.data.shards.index import MOST_FIELDS, Index, add_digests, find_members, scan_shard, split_name
from mvssl.data.shards.shard_file import FileStamp, ShardFile, open_file_share, open_shard, stamp_shard
from mvssl.data.shards.tar import BLOCK, Archive
from mvssl.errors import DataError, OutputError
from mvssl.files import cache_folder, open_atomic
from mvssl.process.progress import progress_bar

Kept = TypeVar("Kept")

_VERSION = 3
_HASH = re.compile("[0-9a-f]{32}")
_CHECKED = 16  # members of samples, and gaps between them, that are compared with the shard when an index is read
_THREADS = 4  # they wait for disks; more of them wait for Python's lock: 10 M samples took 1.6 s with 4, 2.4 s with 16
_ARRAYS = {  # name -> kind of its numbers, dimensions
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


def index_shards(paths: list[Path], progress: bool = True, *, digests: bool = False) -> list[Index]:
    """Return the index of each shard, from its file if that is fresh. `digests` computes those of all bodies.

    Raise `DataError` with every damaged shard, `StorageError` if the disk fails.
    """
    return map_indexes(_whole, paths, progress, digests=digests)


def _whole(index: Index) -> Index:
    return index


def map_indexes(
    keep: Callable[[Index], Kept], paths: list[Path], progress: bool = True, *, digests: bool = False
) -> list[Kept]:
    """Return what `keep` returns for the index of each shard; see `index_shards`.

    The memory of each index is used again for the next ones.
    """

    def attempt(path: Path) -> Kept | DataError:
        try:
            return keep(load_index(path, digests=digests))
        except DataError as error:
            return error

    with ThreadPoolExecutor(open_file_share(min(_THREADS, len(paths) or 1), each=2)) as pool:
        results = list(progress_bar(pool.map(attempt, paths), "indexing shards", len(paths), progress))
    faults = [str(result) for result in results if isinstance(result, DataError)]
    if faults:
        more = [f"... and {len(faults) - 10} more"] if len(faults) > 10 else []
        raise DataError("\n".join(faults[:10] + more))
    return [result for result in results if not isinstance(result, DataError)]


def load_index(path: Path, *, digests: bool = False) -> Index:
    """Return the index of one shard, from its file if that is fresh. Raise `DataError`, `StorageError`.

    Digests of a kept index stay as long as the shard's headers are the same. So they hold for a copy, and show a body
    that was changed in its place. With `digests`, they are computed again.
    """
    stamp, kept = stamp_shard(path), _kept_indexes(path)
    usable = (index for index in kept if not index.stamp.differs(stamp) and belongs_to_shard(index))
    fresh = next(usable, None)
    index = _with_kept_digests(scan_shard(path) if fresh is None else fresh._replace(stamp=stamp), kept)
    if digests:
        index = add_digests(index)
    if digests or fresh is None:
        any(write_index_file(file, index) for file in index_files(path))  # until one can be written
    return index


def rescan(path: Path) -> Index:
    """Return the index of one shard from all its headers. Only digests of bodies are taken from a kept index."""
    return _with_kept_digests(scan_shard(path), _kept_indexes(path))


def _kept_indexes(path: Path) -> list[Index]:
    """Return the indexes that all places hold, fresh ones first, then by the latest state of the shard.

    A copied folder may bring a stale index that cannot be replaced because it is read-only. The fresh index is then
    in the cache folder.
    """
    stamp = stamp_shard(path)
    indexes = [read_index_file(file, path, stamp.size) for file in index_files(path)]
    present = [index for index in indexes if index is not None]
    return sorted(present, key=lambda index: (index.stamp.differs(stamp), -index.stamp.ctime))


def _with_kept_digests(now: Index, kept: list[Index]) -> Index:
    """Return the index with its digests, or else those of the first kept one that has some for the same members."""
    for before in [now, *kept]:
        if before.digests is None or before.digests.shape != now.sizes.shape:
            continue
        if (before.archive, before.fields) == (now.archive, now.fields) and np.array_equal(before.keys, now.keys):
            return now._replace(digests=before.digests)
    return now


def index_files(path: Path) -> list[Path]:
    """Return where the index of a shard may lie: beside it first, unless $MVSSL_CACHE is set.

    The file is hidden, so that a glob `*` does not match it.
    """
    path = path.resolve()
    name = hashlib.blake2b(os.fsencode(path), digest_size=16).hexdigest()
    files = [] if os.environ.get("MVSSL_CACHE") else [path.with_name(f".{path.name}.mvssl.npz")]
    with contextlib.suppress(OutputError):  # an index can be made each time
        files.append(cache_folder() / "index" / f"{name}.npz")
    return files


def read_index_file(file: Path, path: Path, shard_size: int) -> Index | None:
    """Return the index of a file; None if it is absent, damaged, too large or of another version.

    Its stamp and `belongs_to_shard` tell whether it is that of the shard as it is now.
    """
    # a row has up to MOST_FIELDS fields of 22 bytes, and belongs to at least two blocks of the shard
    limit = min(1 << 30, (1 << 20) + shard_size // (2 * BLOCK) * (22 * MOST_FIELDS))
    try:
        with open(file, "rb", buffering=0) as opened:
            return _unpack(opened.read(), path) if os.fstat(opened.fileno()).st_size <= limit else None
    except Exception:  # a damaged file fails in many ways, and is made again in any case
        return None


def _unpack(data: bytes, path: Path) -> Index | None:
    """Return the index in the bytes of a file. Raise whatever zipfile and numpy raise on damaged ones."""
    with zipfile.ZipFile(io.BytesIO(data)) as saved:
        entries = {entry.filename.removesuffix(".npy"): entry for entry in saved.infolist()[:20]}
        if set(entries) - {"digests"} != set(_ARRAYS):
            return None
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            return None  # so that the content is no larger than the file
        arrays = {name: read_npy(_read_stored(data, entry)) for name, entry in entries.items()}
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
    return Index(
        path, arrays["keys"], fields, arrays["offsets"], arrays["sizes"], arrays["headers"], arrays["others"],
        archive, digest, arrays["ignored"].item(), FileStamp(*stamp), arrays.get("digests"),
    )  # fmt: skip


def _read_stored(data: bytes, entry: zipfile.ZipInfo) -> memoryview:
    """Return the bytes of an entry that is not compressed, without a copy; zipfile takes six times as long.

    Raise `ValueError` if its checksum is wrong. Format: APPNOTE.TXT of PKWARE, 4.3.7.
    """
    name, extra = struct.unpack_from("<HH", data, entry.header_offset + 26)
    begin = entry.header_offset + 30 + name + extra
    body = memoryview(data)[begin : begin + entry.file_size]
    if zlib.crc32(body) != entry.CRC:
        raise ValueError(f"{entry.filename} is damaged")
    return body


def write_index_file(file: Path, index: Index) -> bool:
    """Write an index to its file. Return whether it worked."""
    arrays = index._asdict() | {
        "stamp": np.array([_VERSION, *index.stamp], np.int64),
        "fields": np.array([field.encode() for field in index.fields]),
        "archive": np.array(index.archive.encode()),
        "digest": np.array(index.digest.encode()),
        "ignored": np.array(index.ignored, np.int64),
    }
    names = [*_ARRAYS] if index.digests is None else [*_ARRAYS, "digests"]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open_atomic(file) as opened:
            np.savez(opened, **{name: arrays[name] for name in names})
    except OSError:
        return False
    return True


def belongs_to_shard(index: Index) -> bool:
    """Return whether the index is consistent, fills its shard, and agrees with some headers of the shard."""
    end = _find_end(index)
    if end is None:
        return False
    try:
        with open_shard(index.path) as shard:
            return _agrees_with_headers(index, end, shard)
    except DataError:
        return False


def _find_end(index: Index) -> int | None:
    """Return where the last member ends; None if tables, keys or places are not possible. The shard is not read."""
    shape, size = (len(index.keys), len(index.fields)), index.stamp.size
    tables = [index.offsets, index.sizes, index.headers, *([] if index.digests is None else [index.digests])]
    if any(table.shape != shape for table in tables) or 0 in shape or index.others.shape[1] != 2:
        return None
    if len(set(index.fields)) < shape[1] or not _are_keys_possible(index.keys):
        return None
    present, offsets, headers = index.sizes >= 0, index.offsets, index.headers
    if not present.all():
        offsets, headers = offsets[present], headers[present]
        if not present.any(1).all():
            return None
    if index.sizes.max() > size or offsets.min() < 0 or offsets.max() > size or (offsets & (BLOCK - 1)).any():
        return None
    if headers.min() < 1 or (index.others < 0).any() or (index.others > size).any():
        return None
    begins, ends, in_order = members = find_members(index.offsets, index.sizes, index.headers)
    apart = begins[0] >= 0 and (begins[1:] >= ends[:-1]).all()
    end = int(max(ends[-1], index.others[-1, 1] if len(index.others) else 0))
    return end if in_order and apart and np.array_equal(members.gaps(end), index.others) else None


def _are_keys_possible(keys: np.ndarray) -> bool:
    """Return whether keys are UTF-8, and each comes once."""
    if not (keys[1:] > keys[:-1]).all() and len(set(keys.tolist())) < len(keys):
        return False
    if not keys.tobytes().isascii():
        try:
            b"\n".join(keys.tolist()).decode()
        except UnicodeDecodeError:
            return False
    return True


def _agrees_with_headers(index: Index, end: int, shard: ShardFile) -> bool:
    """Return whether the end mark is at `end`, some headers name their field, and some gaps hold no sample.

    Raise `DataError` if the shard is damaged there.
    """
    archive = Archive(shard)
    archive.check_end(end)
    present = np.flatnonzero(index.sizes >= 0)
    checked = present[spread_indices(len(present), _CHECKED)]
    for row, column in zip(*(part.tolist() for part in divmod(checked, len(index.fields))), strict=True):
        offset, size, blocks = (int(table[row, column]) for table in (index.offsets, index.sizes, index.headers))
        headers = shard.read(blocks * BLOCK, offset - blocks * BLOCK)
        location = FieldLocation(bytes(index.keys[row]), index.fields[column], offset, size, blocks, None)
        if not header_matches(shard, location, headers):
            return False
    gaps = index.others[spread_indices(len(index.others), _CHECKED)].tolist()
    parts = [archive.between(start, stop, _CHECKED) for start, stop in gaps]
    rest = [member for part in parts for member in part]
    complete = len(index.others) <= _CHECKED and all(len(part) < _CHECKED for part in parts)
    counted = len(rest) == index.ignored if complete else len(rest) <= index.ignored
    return counted and all(split_name(member.name) is None for member in rest)
