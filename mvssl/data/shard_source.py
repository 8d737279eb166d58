"""Sources of samples: shards on the disk, or any map-style dataset of dicts.

in   shards and the recipe's columns, or a dataset whose items are dicts
out  source[i], a dict column -> array, every sample of one column in one shape and type; or an `SampleError`
"""

import bisect
import difflib
import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from mvssl.data.batch import Form, Sample, common_form, conform
from mvssl.data.decoding.decode import DECODERS, MAX_BYTES, decode, extension
from mvssl.data.decoding.images import MAX_PIXELS
from mvssl.data.sample_errors import Absent, SampleError, Unnamed, Unreadable, Vanished
from mvssl.data.shards.index import Index, build
from mvssl.data.shards.paths import find_shards
from mvssl.data.shards.reading import Files, Place, Shard
from mvssl.data.shards.scan import dotted
from mvssl.errors import DataError, RecipeError, StorageError
from mvssl.recipe import Column
from mvssl.text import counted, printable

Missing = Literal["drop", "mask", "error"]
SOUGHT = 10_000  # samples tried for the json path of a spare column


def open_shards(
    patterns: str | list[str],
    root: Path,
    columns: dict[str, Column],
    *,
    missing: Missing = "drop",
    spare: Collection[str] = (),
    progress: bool = True,
) -> "ShardSource":
    """The samples of all shards that `patterns` name under `root`, with `columns`; those of `spare` none need have.

    Columns of `spare`, such as a label, have no say in which samples are kept, and go where none of these has them (of
    those with a json path, none of SOUGHT). A sample whose json lacks the path of a spare column lacks the column.
    Raises `DataError` where shards are absent or damaged, no sample has a column, or the samples of a column differ in
    shape; `RecipeError` where a column's field has no decoder, its mode or rate does not suit it, or its size is
    beyond `MAX_PIXELS`.
    """
    for name, column in columns.items():
        pixels = math.prod(column.size) if isinstance(column.size, tuple) else (column.size or 1) ** 2
        if pixels > MAX_PIXELS:
            raise RecipeError(f"columns.{name}.size: {column.size} is {pixels:,} pixels; the limit is {MAX_PIXELS:,}")
        for field in alternatives(column):
            if extension(field) not in DECODERS:
                raise RecipeError(f"columns.{name}.field: no decoder for {field!r} (accepted: {', '.join(DECODERS)})")
            if extension(field) == "wav" and column.rate is None:
                raise RecipeError(f"columns.{name}.rate: sound has to come at one rate; say how many samples a second")
            if column.mode is not None and (extension(field) == "wav") != (column.mode == "mono"):
                raise RecipeError(f"columns.{name}.mode: {column.mode}; images take rgb or gray, sound takes mono")
    return ShardSource(build(find_shards(patterns, Path(root)), progress), columns, missing, spare)


def alternatives(column: Column) -> list[str]:
    """The fields that may hold a column, best first: `jpg;png` takes either, as in webdataset."""
    return [field.strip().lower() for field in column.field.split(";")]


class ShardSource:
    """Map-style source over indexed shards: `source[i]` reads and decodes one sample.

    `dropped` samples that lack a column are left out, whatever they have of `spare` ones; `optional` columns are those
    that samples may still lack. In `checked` of the shards, bodies are held against digests when they are read.
    """

    def __init__(
        self,
        indexes: list[Index],
        columns: dict[str, Column],
        missing: Missing = "drop",
        spare: Collection[str] = (),
    ):
        self.columns = dict(columns)
        self.paths = [index.path for index in indexes]
        self._shards = [Shard(index.path, index.stamp, index.digest) for index in indexes]
        self._digested = [index.digests is not None for index in indexes]
        self.checked = sum(self._digested)
        placed = [_place(index, columns) for index in indexes]
        there = [np.asarray(table.sizes >= 0) for table in placed]
        asked = [name not in spare for name in columns]
        keep = [_kept(has[:, asked], missing) for has in there]
        self._check_columns(indexes, there, keep, missing, spare)
        self._starts = [0, *itertools.accumulate(int(rows.sum()) for rows in keep)]
        self.dropped = sum(len(rows) for rows in keep) - len(self)
        kept = [[part[rows] for part in table] for table, rows in zip(placed, keep, strict=True)]
        self._table = _Table(*(np.concatenate(part) for part in zip(*kept, strict=True)))
        self._keys = [index.keys[rows] for index, rows in zip(indexes, keep, strict=True)]
        self._leave_out([c for c, name in enumerate(columns) if not asked[c] and not self.has(name).any()])
        self._inside = {n for n, column in self.columns.items() if n in spare and is_inside_json(column)}
        self.fingerprint = _fingerprint(indexes, len(self))
        self._files = Files()
        forms = {name: self._probe(name, np.flatnonzero(self.has(name))) for name in self.columns}
        self._leave_out([c for c, form in enumerate(forms.values()) if form is None])
        self.forms = {name: form for name, form in forms.items() if form is not None}
        self.optional = {name for name in self.columns if name in self._inside or not self.has(name).all()}

    def _leave_out(self, unknown: list[int]) -> None:
        if unknown:
            self._table = _Table(*(np.delete(part, unknown, axis=1) for part in self._table))
            self.columns = {name: column for c, (name, column) in enumerate(self.columns.items()) if c not in unknown}

    def _check_columns(self, indexes, there, keep, missing, spare) -> None:
        total = sum(len(index.keys) for index in indexes)
        for c, (name, column) in enumerate(self.columns.items()):
            if name in spare:
                continue
            lacks = [(index, has[:, c]) for index, has in zip(indexes, there, strict=True)]
            count = sum(int(has.sum()) for _, has in lacks)
            if not count:
                raise DataError(
                    f"columns.{name}: no sample has the field {column.field!r}{_fields_found(column, indexes)}"
                )
            if missing == "error" and count < total:
                index, has = next((index, has) for index, has in lacks if not has.all())
                first = printable(_text(index.keys[np.argmin(has)]))
                raise DataError(
                    f"columns.{name}: {total - count} of {total} samples lack {column.field!r}, the first is {first} "
                    f"in {index.path}; data.missing: drop leaves such samples out, mask keeps them"
                )
        if not sum(int(rows.sum()) for rows in keep):
            wanted = ", ".join(column.field for name, column in self.columns.items() if name not in spare)
            where = ", ".join(str(path) for path in self.paths[:3])
            raise DataError(f"none of {counted(total, 'sample')} in {where} has all of {wanted}")

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, i: int) -> Sample:
        """Column -> array, absent columns left out. Raises `SampleError` where one cannot be used."""
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        sample = {}
        for name in (name for c, name in enumerate(self.columns) if self._table.sizes[i, c] >= 0):
            try:
                sample[name] = self._conformed(i, name)
            except Absent:
                if name not in self._inside:
                    raise
        return sample

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one sample of each column."""
        return {name: form.shape for name, form in self.forms.items()}

    def has(self, name: str) -> np.ndarray:
        """bool [n], which samples have a column's field; none where there is no such column."""
        if name not in self.columns:
            return np.zeros(len(self), dtype=bool)
        return np.asarray(self._table.sizes[:, list(self.columns).index(name)] >= 0)

    def key(self, i: int) -> str:
        """The sample's key in its shard."""
        shard = self._shard(i)
        return _text(self._keys[shard][i - self._starts[shard]])

    def shard(self, i: int) -> str:
        """Path of the shard that holds the sample."""
        return str(self.paths[self._shard(i)])

    def _shard(self, i: int) -> int:
        return bisect.bisect_right(self._starts, i) - 1

    def _conformed(self, i: int, name: str) -> np.ndarray:
        try:
            return conform(name, self._decode(i, name), self.forms[name])
        except SampleError as error:
            raise type(error)(error.reason, name, f"{self.shard(i)}: {self.key(i)}") from None

    def _decode(self, i: int, name: str) -> np.ndarray:
        c = list(self.columns).index(name)
        shard, column = self._shard(i), self.columns[name]
        offset, size, headers, choice, digest = (int(part[i, c]) for part in self._table)
        field = alternatives(column)[choice]
        if size > MAX_BYTES:
            raise SampleError(f"{size:,} bytes; the limit is {MAX_BYTES:,}")
        key = bytes(self._keys[shard][i - self._starts[shard]])
        place = Place(key, field, offset, size, headers, digest if self._digested[shard] else None)
        return decode(column, field, self._files.read(self._shards[shard], place))

    def _probe(self, name: str, rows: np.ndarray) -> Form | None:
        """What the column looks like, from samples here and there, or else from the first that can be decoded.

        None where it is a spare one inside json, and not in that of any sample.
        """
        scattered, arrays, reasons, absent, texts = _spread(rows, 9), [], [], 0, {}
        more = _spread(rows, SOUGHT) if name in self._inside else []
        for i in dict.fromkeys([*scattered, *rows[:100].tolist(), *more]):
            if arrays and len(arrays) + len(reasons) + absent >= len(scattered):
                break
            try:
                arrays.append(self._decode(i, name))
            except SampleError as error:
                if isinstance(error, Unreadable) and not isinstance(error, Vanished):
                    raise StorageError(f"{self.shard(i)}: {error.reason}") from None
                if name in self._inside and isinstance(error, Absent):
                    absent += 1
                else:
                    reasons.append(f"{self.shard(i)}: {self.key(i)}: {error.reason}")
                    texts.update(dict.fromkeys(error.texts if isinstance(error, Unnamed) else ()))
        if absent and not arrays and not reasons:
            return None
        if not arrays and texts:
            seen = ", ".join(printable(text[:40]) for text in sorted(texts)[:12])
            raise DataError(
                f"columns.{name}: {self.columns[name].field!r} holds text; say which class a text is by its place in a "
                f"list, names: [{seen}{', ...' if len(texts) > 12 else ''}] (seen in {counted(len(reasons), 'sample')})"
            )
        if not arrays:
            raise DataError(
                f"columns.{name}: of {counted(len(reasons), 'sample')} tried none could be decoded; {reasons[0]}"
            )
        return common_form(name, arrays)


class _Table(NamedTuple):
    """Where the columns of samples are, [n, c] each; see `Index`."""

    offsets: np.ndarray
    sizes: np.ndarray  # -1 where a sample lacks the column
    headers: np.ndarray
    choice: np.ndarray  # which of the column's alternatives it is
    digests: np.ndarray  # 0 where the index holds none


def _place(index: Index, columns: dict[str, Column]) -> _Table:
    shape = len(index.keys), len(columns)
    offsets, sizes = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
    headers, choice, digests = np.zeros(shape, np.uint16), np.zeros(shape, np.int8), np.zeros(shape, np.uint32)
    for c, column in enumerate(columns.values()):
        for number, field in enumerate(alternatives(column)):
            if field in index.fields:
                f = index.fields.index(field)
                new = (sizes[:, c] < 0) & (index.sizes[:, f] >= 0)
                offsets[new, c], sizes[new, c], choice[new, c] = index.offsets[new, f], index.sizes[new, f], number
                headers[new, c] = index.headers[new, f]
                if index.digests is not None:
                    digests[new, c] = index.digests[new, f]
    return _Table(offsets, sizes, headers, choice, digests)


def is_inside_json(column: Column) -> bool:
    """Whether a sample may have the field and lack the column all the same."""
    return column.path is not None and any(extension(field) == "json" for field in alternatives(column))


def _spread(rows: np.ndarray, most: int) -> list[int]:
    """At most so many of these, evenly from the first to the last."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, most).astype(np.int64))].tolist()


def _kept(has: np.ndarray, missing: Missing) -> np.ndarray:
    return np.asarray(has.any(1) if missing == "mask" else has.all(1))


def _fields_found(column: Column, indexes: list[Index]) -> str:
    found: Counter[str] = Counter()
    for index in indexes:
        found.update(dict(zip(index.fields, (index.sizes >= 0).sum(0).tolist(), strict=True)))
    close = difflib.get_close_matches(column.field, found, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(f"{printable(field)} in {n}" for field, n in found.most_common(12))
    numbered = next((f"; {said}" for index in indexes if (said := dotted(index))), "")
    return f"{hint} (fields of these shards: {listed}){numbered}"


def _fingerprint(indexes: list[Index], samples: int) -> str:
    """One name for this data, whichever folder it stands in."""
    parts = [f"{index.digest} {index.stamp.size}" for index in indexes]
    return hashlib.blake2b("\n".join([*parts, str(samples)]).encode(), digest_size=16).hexdigest()


def _text(key: np.ndarray) -> str:
    return bytes(key).decode()
