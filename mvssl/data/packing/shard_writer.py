"""Samples to the shards of one split, in webdataset's format.

in   a `PackSplit`, the rows of it to write, an empty folder
out  FOLDER/000000.tar ..., and names.tsv if samples have names; `Written`: counts
"""

import io
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from webdataset.writer import ShardWriter

from mvssl.data.decoding.arrays import read_npy
from mvssl.data.decoding.file_signatures import extension
from mvssl.data.decoding.wav import read_wav
from mvssl.data.packing.samples import PackSplit
from mvssl.process.progress import progress_bar

_BYTES_PER_SHARD = 1 << 30


class Written(NamedTuple):
    samples: int
    shards: int
    fields: Counter[str]  # samples that have a field
    kinds: Counter[tuple[str, str]]  # field, kind of its arrays or sounds -> samples


def write_split(split: PackSplit, rows: np.ndarray, folder: Path, seed: int, per_shard: int, progress: bool) -> Written:
    """Write the samples `rows` of a split to shards, in an order that `seed` fixes."""
    order = rows[np.random.default_rng([seed, 1]).permutation(len(rows))].tolist()
    fields, kinds, names, written = Counter(), Counter(), [], 0
    # webdataset fills the pattern with %, so other per cent signs of the path are doubled
    with _open_writer(str(folder).replace("%", "%%") + "/%06d.tar", per_shard) as writer:
        for i in progress_bar(order, f"packing {folder.name}", len(order), progress):
            sample, key = split.fields(i), f"{written:08d}"
            if not sample:
                continue
            written += 1
            writer.write({"__key__": key, **sample})
            fields.update(sample.keys())
            kinds.update((field, kind) for field, content in sample.items() if (kind := _kind_of(field, content)))
            if split.name is not None:
                names.append(f"{key}\t{one_line(split.name(i))}\n")
    if names:
        (folder / "names.tsv").write_text("".join(names))
    return Written(written, len(list(folder.glob("*.tar"))), fields, kinds)


def _kind_of(field: str, content: bytes) -> str:
    """Return type and channels of an array, or rate and channels of a sound, which the samples of a field share."""
    if extension(field) == "npy":
        array = read_npy(content)
        shape = ["h", "w"] if array.ndim == 2 and min(array.shape) > 4 else [*array.shape[:1], *"hw"[: array.ndim - 1]]
        finite = array.dtype.kind != "f" or bool(np.isfinite(array).all())
        return f"{array.dtype} [{', '.join(map(str, shape))}]" + ("" if finite else " with NaN or infinite values")
    if extension(field) == "wav":
        sound, rate = read_wav(content)
        return f"{len(sound)}-channel sound at {rate:,} Hz"
    return ""


@contextmanager
def _open_writer(pattern: str, per_shard: int) -> Iterator[ShardWriter]:
    """Yield webdataset's writer. After a failure its files are closed without a second try to write their buffers."""
    opened: list[io.BufferedWriter] = []

    def start(path: str) -> io.BufferedWriter:
        opened.append(open(path, "wb"))  # noqa: SIM115
        return opened[-1]

    options: dict[str, Any] = {"verbose": 0, "encoder": False, "mtime": 0, "opener": start}
    options |= {"maxcount": per_shard, "maxsize": _BYTES_PER_SHARD, "post": lambda _: opened.pop().close()}
    try:
        with ShardWriter(pattern, **options) as writer:
            yield writer
    finally:
        for file in opened:
            file.raw.close()


def one_line(name: str) -> str:
    """Return a name on one line: control characters, backslashes and invalid UTF-8 as Python escapes them."""
    odd = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\]"
    return re.sub(odd, lambda match: match[0].encode("unicode_escape").decode(), name)
