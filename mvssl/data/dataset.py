"""Sources of samples: shards on the disk, or any map-style dataset of dicts.

in   shards and the recipe's columns, or a dataset whose items are dicts
out  source[i], a dict column -> array, every sample of one column in one shape and type; or an `Undecodable`
"""

import difflib
import hashlib
import math
import os
from collections import Counter, OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import numpy as np

from mvssl.data.batch import Form, Sample
from mvssl.data.decode import DECODERS, decode, extension
from mvssl.data.faults import Absent, Undecodable, Unreadable
from mvssl.data.forms import common_form, conform
from mvssl.data.images import MAX_PIXELS
from mvssl.data.index import Index, build
from mvssl.data.paths import expand
from mvssl.errors import DataError, RecipeError
from mvssl.recipe import Column
from mvssl.words import counted

Missing = Literal["drop", "mask", "error"]
SOUGHT = 10_000  # samples tried for the json path of a spare column
_OPEN = 64  # shards that one process keeps open


def open_shards(
    patterns: str | list[str],
    root: Path,
    columns: dict[str, Column],
    *,
    missing: Missing = "drop",
    spare: Collection[str] = (),
    progress: bool = True,
) -> "Shards":
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
    return Shards(build(expand(patterns, Path(root)), progress), columns, missing, spare)


def alternatives(column: Column) -> list[str]:
    """The fields that may hold a column, best first: `jpg;png` takes either, as in webdataset."""
    return [field.strip().lower() for field in column.field.split(";")]


class Shards:
    """Map-style source over indexed shards: `source[i]` reads and decodes one sample.

    `dropped` samples that lack a column are left out, whatever they have of `spare` ones; `optional` columns are those
    that samples may still lack.
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
        self._stats = [index.stat for index in indexes]
        placed = [_place(index, columns) for index in indexes]
        there = [np.asarray(sizes >= 0) for _, sizes, _ in placed]
        asked = [name not in spare for name in columns]
        keep = [_kept(has[:, asked], missing) for has in there]
        self._check_columns(indexes, there, keep, missing, spare)
        self._starts = np.cumsum([0, *(int(rows.sum()) for rows in keep)])
        self.dropped = sum(len(rows) for rows in keep) - len(self)
        parts = [[part[rows] for part in parts] for parts, rows in zip(placed, keep, strict=True)]
        self._offsets, self._sizes, self._choice = (np.concatenate(part) for part in zip(*parts, strict=True))
        self._keys = [index.keys[rows] for index, rows in zip(indexes, keep, strict=True)]
        self._leave_out([c for c, name in enumerate(columns) if not asked[c] and not self.has(name).any()])
        self._inside = {n for n, column in self.columns.items() if n in spare and in_json(column)}
        self.fingerprint = _fingerprint(indexes, len(self))
        self._files = _Files()
        forms = {name: self._probe(name, np.flatnonzero(self.has(name))) for name in self.columns}
        self._leave_out([c for c, form in enumerate(forms.values()) if form is None])
        self.forms = {name: form for name, form in forms.items() if form is not None}
        self.optional = {name for name in self.columns if name in self._inside or not self.has(name).all()}

    def _leave_out(self, unknown: list[int]) -> None:
        if unknown:
            parts = (np.delete(part, unknown, axis=1) for part in (self._offsets, self._sizes, self._choice))
            self._offsets, self._sizes, self._choice = parts
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
                raise DataError(
                    f"columns.{name}: {total - count} of {total} samples lack {column.field!r}, the first is "
                    f"{_text(index.keys[np.argmin(has)])} in {index.path}; data.missing: drop leaves such samples out, "
                    "mask keeps them"
                )
        if not sum(int(rows.sum()) for rows in keep):
            wanted = ", ".join(column.field for name, column in self.columns.items() if name not in spare)
            where = ", ".join(str(path) for path in self.paths[:3])
            raise DataError(f"none of {counted(total, 'sample')} in {where} has all of {wanted}")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, i: int) -> Sample:
        """Column -> array, absent columns left out. Raises `Undecodable` where one cannot be used."""
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        sample = {}
        for name in (name for c, name in enumerate(self.columns) if self._sizes[i, c] >= 0):
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
        return np.asarray(self._sizes[:, list(self.columns).index(name)] >= 0)

    def key(self, i: int) -> str:
        """The sample's key in its shard."""
        shard = self._shard(i)
        return _text(self._keys[shard][i - self._starts[shard]])

    def shard(self, i: int) -> str:
        """Path of the shard that holds the sample."""
        return str(self.paths[self._shard(i)])

    def _shard(self, i: int) -> int:
        return int(np.searchsorted(self._starts, i, side="right")) - 1

    def _conformed(self, i: int, name: str) -> np.ndarray:
        try:
            return conform(name, self._decode(i, name), self.forms[name])
        except Undecodable as error:
            raise type(error)(error.reason, name, f"{self.shard(i)}: {self.key(i)}") from None

    def _decode(self, i: int, name: str) -> np.ndarray:
        c = list(self.columns).index(name)
        shard, column = self._shard(i), self.columns[name]
        try:
            data = self._files.read(
                self.paths[shard], self._stats[shard], int(self._offsets[i, c]), int(self._sizes[i, c])
            )
        except OSError as error:
            raise Unreadable(f"the shard cannot be read: {error.strerror}") from None
        return decode(column, alternatives(column)[self._choice[i, c]], data)

    def _probe(self, name: str, rows: np.ndarray) -> Form | None:
        """What the column looks like, from samples here and there, or else from the first that can be decoded.

        None where it is a spare one inside json, and not in that of any sample.
        """
        scattered, arrays, reasons, absent = _spread(rows, 9), [], [], 0
        more = _spread(rows, SOUGHT) if name in self._inside else []
        for i in dict.fromkeys([*scattered, *rows[:100].tolist(), *more]):
            if arrays and len(arrays) + len(reasons) + absent >= len(scattered):
                break
            try:
                arrays.append(self._decode(i, name))
            except Undecodable as error:
                if name in self._inside and isinstance(error, Absent):
                    absent += 1
                else:
                    reasons.append(f"{self.shard(i)}: {self.key(i)}: {error.reason}")
        if absent and not arrays and not reasons:
            return None
        if not arrays:
            raise DataError(
                f"columns.{name}: of {counted(len(reasons), 'sample')} tried none could be decoded; {reasons[0]}"
            )
        return common_form(name, arrays)


class _Files:
    """A few open shards, read by offset. Descriptors are not carried to another process."""

    def __init__(self):
        self._open: OrderedDict[Path, int] = OrderedDict()

    def read(self, path: Path, stat: tuple[int, int], offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor(path, stat), size, offset)
        if len(data) < size:
            raise Undecodable("the shard became shorter while it was read")
        return data

    def _descriptor(self, path: Path, stat: tuple[int, int]) -> int:
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        descriptor = os.open(path, os.O_RDONLY)
        now = os.fstat(descriptor)
        if (now.st_size, now.st_mtime_ns) != stat:
            os.close(descriptor)
            raise Undecodable("the shard has changed since it was indexed")
        self._open[path] = descriptor
        if len(self._open) > _OPEN:
            os.close(self._open.popitem(last=False)[1])
        return descriptor

    def __getstate__(self) -> dict:
        return {"_open": OrderedDict()}

    def __del__(self):
        for descriptor in self._open.values():
            os.close(descriptor)


def _place(index: Index, columns: dict[str, Column]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offset, size and chosen alternative of each column, [n, c]; size -1 where a sample lacks it."""
    n = len(index.keys)
    offsets = np.full((n, len(columns)), -1, np.int64)
    sizes, choice = offsets.copy(), np.zeros(offsets.shape, np.int8)
    for c, column in enumerate(columns.values()):
        for number, field in enumerate(alternatives(column)):
            if field in index.fields:
                f = index.fields.index(field)
                new = (sizes[:, c] < 0) & (index.sizes[:, f] >= 0)
                offsets[new, c], sizes[new, c], choice[new, c] = index.offsets[new, f], index.sizes[new, f], number
    return offsets, sizes, choice


def in_json(column: Column) -> bool:
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
    return f"{hint} (fields of these shards: {', '.join(f'{field} in {n}' for field, n in found.most_common(12))})"


def _fingerprint(indexes: list[Index], samples: int) -> str:
    """One name for this data, whichever folder it stands in."""
    parts = [f"{index.digest} {index.stat[0]}" for index in indexes]
    return hashlib.blake2b("\n".join([*parts, str(samples)]).encode(), digest_size=16).hexdigest()


def _text(key: np.ndarray) -> str:
    return bytes(key).decode()
