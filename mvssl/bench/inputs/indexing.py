"""How long shards take to index, beside Python's tarfile, and how long many indexed samples take to open.

in   how many samples to index, and how many to open
out  seconds of both and the bytes that an open source keeps for a sample, as a table and JSON

The shards to index are written in full. Those to open have gaps in place of all bodies that are never read, so that ten
million samples fit on the disk; their indexes are complete.
"""

import contextlib
import resource
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from mvssl.bench.comparison import compare, finish_comparison
from mvssl.bench.synthetic import make_jpeg
from mvssl.bench.timing import check_json_file
from mvssl.data import open_shards
from mvssl.data.order import spread_indices
from mvssl.data.shards.index import Index, find_members
from mvssl.data.shards.index_cache import index_files, index_shards, write_index_file
from mvssl.data.shards.shard_file import FileStamp
from mvssl.data.shards.tar import BLOCK, padded
from mvssl.recipe.schema import Column

_PIXELS, _LABEL = 32, b"3"
_PER_SHARD = 10_000  # samples
_READ = 64  # samples of a shard with gaps that are written; opening reads about sixteen
COLUMNS = {"image": Column(field="jpg"), "label": Column(field="cls")}


def bench_index(
    *, samples: int = 100_000, opened: int = 10_000_000, json_file: str | Path | None = None
) -> dict[str, Any]:
    """Return the seconds to index `samples` and to open `opened` samples, each with an image and a class.

    `ratio` compares with `tarfile`, which reads the names and places of all members. `kept` is the memory of an open
    source in bytes a sample. Raise `OutputError`.
    """
    check_json_file(json_file)
    with tempfile.TemporaryDirectory() as name, _indexes_removed(Path(name)) as folder:
        written = [_write_shard(folder / f"{n:06d}.tar", n) for n in range(max(1, samples // _PER_SHARD))]
        ways = {"ours": lambda: _index_anew(written), "tarfile": lambda: [_list_members(path) for path in written]}
        rows = [compare(f"index {len(written) * _PER_SHARD:,} samples", ways, rounds=3, clock="wall")]
        (folder / "many").mkdir()
        shards = max(1, opened // _PER_SHARD)
        for n in range(shards):
            _write_shard(folder / "many" / f"{n:06d}.tar", n, gaps=True)
        before = psutil.Process().memory_info().rss
        source = open_shards("*.tar", folder / "many", COLUMNS, progress=False)
        kept = (psutil.Process().memory_info().rss - before) / len(source)
        del source
        opening = {"ours": lambda: open_shards("*.tar", folder / "many", COLUMNS, progress=False)}
        rows.append(compare(f"open {shards * _PER_SHARD:,} samples", opening, rounds=3, clock="wall"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    bottleneck = (
        f"Python's work on each header, {1e6 * rows[0].seconds['ours'] / (2 * len(written) * _PER_SHARD):.1f} "
        f"microseconds; an open source keeps {kept:.0f} bytes a sample"
    )
    return finish_comparison(
        "index", rows, bottleneck=bottleneck, clock="wall", json_file=json_file, kept=kept, peak=peak
    )


@contextlib.contextmanager
def _indexes_removed(folder: Path) -> Iterator[Path]:
    """Yield the folder, and remove the indexes of its shards at the end: they may lie in the cache folder."""
    try:
        yield folder
    finally:
        for path in folder.rglob("*.tar"):
            _remove_index(path)


def _remove_index(path: Path) -> None:
    for file in index_files(path):
        file.unlink(missing_ok=True)


def _index_anew(paths: list[Path]) -> list[Index]:
    for path in paths:
        _remove_index(path)
    return index_shards(paths, progress=False)


def _list_members(path: Path) -> list[tuple[str, int, int]]:
    with tarfile.open(path) as shard:
        return [(member.name, member.offset_data, member.size) for member in shard]


def _write_shard(path: Path, number: int, gaps: bool = False) -> Path:
    """Write a shard; with `gaps` only the bodies and headers that are read, and the index of the rest."""
    keys = [f"{number * _PER_SHARD + i:09d}" for i in range(_PER_SHARD)]
    image = make_jpeg(0, _PIXELS, _PIXELS)
    bodies = {"jpg": image, "cls": _LABEL}
    sizes = np.tile([len(body) for body in bodies.values()], (_PER_SHARD, 1))
    ends = np.cumsum(BLOCK + padded(sizes)).reshape(sizes.shape)
    offsets = ends - padded(sizes)
    present = {*spread_indices(_PER_SHARD, _READ).tolist()} if gaps else range(_PER_SHARD)
    present = sorted({*present, *(spread_indices(2 * _PER_SHARD, 16) // 2).tolist()}) if gaps else present
    with open(path, "wb") as file:
        file.truncate(int(ends[-1, -1]) + 2 * BLOCK)
        for i in present:
            for field, (name, body) in enumerate(bodies.items()):
                file.seek(int(offsets[i, field]) - BLOCK)
                file.write(_header(f"{keys[i]}.{name}", len(body)) + body)
    if gaps:
        headers, end = np.ones(sizes.shape, np.uint16), int(ends[-1, -1])
        others = find_members(offsets, sizes, headers).gaps(end)
        names, none = np.array([key.encode() for key in keys]), "0" * 32
        index = Index(path, names, list(bodies), offsets, sizes, headers, others, none, none, 0, FileStamp.of(path))
        any(write_index_file(file, index) for file in index_files(path))
    return path


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)
