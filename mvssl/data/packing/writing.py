"""Samples to the shards of one split, in webdataset's format.

in   a `Split`, an empty folder, the order's seed, samples per shard
out  FOLDER/000000.tar ..., and names.tsv where samples have names; counts of fields, and of the kinds of arrays in each
"""

import io
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mvssl.data.decoding.arrays import read_npy
from mvssl.data.decoding.file_types import extension
from mvssl.data.decoding.wav import read_wav
from mvssl.data.packing.sources import Split
from mvssl.process.progress import progress_bar

_BYTES_PER_SHARD = 1 << 30


def write_split(
    split: Split, folder: Path, seed: int, per_shard: int, progress: bool, fields: dict[str, int],
    forms: dict[str, Counter[str]],
) -> int:  # fmt: skip
    """The samples written; counts `fields`, and the kinds of arrays and sounds in each."""
    order = np.random.default_rng([seed, 1]).permutation(split.count).tolist()
    # webdataset fills the pattern with %, so other per cent signs of the path are doubled
    pattern = str(folder).replace("%", "%%") + "/%06d.tar"
    names, written = [], 0
    with _writer(pattern, per_shard) as writer:
        for i in progress_bar(order, f"packing {folder.name}", len(order), progress):
            sample, key = split.fields(i), f"{written:08d}"
            if not sample:
                continue
            written += 1
            writer.write({"__key__": key, **sample})
            for field, content in sample.items():
                fields[field] = fields.get(field, 0) + 1
                if form := _form(field, content):
                    forms.setdefault(field, Counter())[form] += 1
            if split.name is not None:
                names.append(f"{key}\t{one_line(split.name(i))}\n")
    if names:
        (folder / "names.tsv").write_text("".join(names))
    return written


def _form(field: str, content: bytes) -> str:
    """What must agree between the samples of a field: type and channels of an array, rate and channels of a sound."""
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
def _writer(pattern: str, per_shard: int) -> Iterator[Any]:
    """webdataset's writer. After a failure its files are closed without a second try to write what they buffer."""
    from webdataset.writer import ShardWriter

    opened: list[io.BufferedWriter] = []

    def start(path: str) -> io.BufferedWriter:
        opened.append(open(path, "wb"))  # noqa: SIM115
        return opened[-1]

    options: dict[str, Any] = {"verbose": 0, "encoder": False, "mtime": 0, "opener": start}
    try:
        with ShardWriter(
            pattern, maxcount=per_shard, maxsize=_BYTES_PER_SHARD, post=lambda _: opened.pop().close(), **options
        ) as writer:
            yield writer
    finally:
        for file in opened:
            file.raw.close()


def one_line(name: str) -> str:
    """A name on one line: control characters, backslashes and bytes that are no UTF-8 as Python escapes them."""
    odd = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\\]"
    return re.sub(odd, lambda found: found[0].encode("unicode_escape").decode(), name)
