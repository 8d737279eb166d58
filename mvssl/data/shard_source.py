"""Indexed shards as a source.

in   patterns of shards, and the recipe's columns
out  source[i], a dict column -> array; a `SampleError` if a sample cannot be used
"""

import bisect
import difflib
import functools
import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import numpy as np

from mvssl.data.batch import ArraySpec, Sample, common_spec, require_spec
from mvssl.data.decoding.arrays import MAX_BYTES
from mvssl.data.decoding.fields import FIELD_FORMATS, decode_field
from mvssl.data.decoding.file_signatures import extension
from mvssl.data.decoding.images import MAX_PIXELS
from mvssl.data.order import spread_indices
from mvssl.data.sample_errors import (
    NoValueError,
    ReadError,
    SampleError,
    ShardGoneError,
    UnnamedTextError,
    refuse_larger,
)
from mvssl.data.shards.field_reader import FieldLocation, FieldReader, IndexedShard
from mvssl.data.shards.index_cache import map_indexes
from mvssl.data.shards.patterns import find_shards
from mvssl.data.shards.places import KeptIndex
from mvssl.data.source import Source
from mvssl.errors import DataError, RecipeError, StorageError
from mvssl.recipe.schema import Column
from mvssl.text import counted, printable

Missing = Literal["drop", "mask", "error"]
_PROBED, _FALLBACK = 9, 100  # samples decoded to learn what a column looks like; samples tried if those are bad
_SEARCHED = 10_000  # samples tried for the json path of an extra column


def open_shards(
    patterns: str | list[str],
    root: Path,
    columns: dict[str, Column],
    *,
    missing: Missing = "drop",
    extra: Collection[str] = (),
    progress: bool = True,
) -> "ShardSource":
    """Return the samples of all shards that `patterns` name under `root`, with `columns`.

    `extra` names columns, such as a label. A sample is kept even if it lacks an extra column. If no sample has an extra
    column, the column is dropped. A sample lacks an extra column if its json lacks the column's path.

    Raise `DataError` if shards are absent or damaged, no sample has a column, or the samples of a column differ in
    shape. Raise `RecipeError` if a column's field has no decoder, its mode or rate does not fit the field, or its
    size is beyond `MAX_PIXELS`.
    """
    for name, column in columns.items():
        _check_column(name, column)
    fields = {name: field_alternatives(column) for name, column in columns.items()}
    paths = find_shards(patterns, Path(root))
    return ShardSource(map_indexes(lambda index: KeptIndex.of(index, fields), paths, progress), columns, missing, extra)


def _check_column(name: str, column: Column) -> None:
    pixels = math.prod(column.size) if isinstance(column.size, tuple) else (column.size or 1) ** 2
    if pixels > MAX_PIXELS:
        raise RecipeError(f"columns.{name}.size: {column.size} is {pixels:,} pixels; the limit is {MAX_PIXELS:,}")
    for field in field_alternatives(column):
        sound = extension(field) == "wav"
        if extension(field) not in FIELD_FORMATS:
            raise RecipeError(f"columns.{name}.field: no decoder for {field!r} (accepted: {', '.join(FIELD_FORMATS)})")
        if sound and column.rate is None:
            raise RecipeError(f"columns.{name}.rate: all sounds of a column need one rate; give its samples per second")
        if column.mode is not None and sound != (column.mode == "mono"):
            raise RecipeError(f"columns.{name}.mode: {column.mode}; images take rgb or gray, sound takes mono")


def field_alternatives(column: Column) -> list[str]:
    """Return the fields that may hold a column, best first: `jpg;png` takes either, as in webdataset."""
    return [field.strip().lower() for field in column.field.split(";")]


def is_inside_json(column: Column) -> bool:
    """Return whether a sample may have the column's field and still lack the column."""
    return column.path is not None and any(extension(field) == "json" for field in field_alternatives(column))


class ShardSource(Source):
    """A source over indexed shards: `source[i]` reads and decodes one sample. `open_shards` makes one.

    `dropped` is the number of samples that were left out because they lack a column. Extra columns are not counted.
    `checked` is the number of shards whose index holds digests. Their bodies are compared with the digests when read.
    """

    def __init__(
        self, shards: list[KeptIndex], columns: dict[str, Column], missing: Missing = "drop",
        extra: Collection[str] = (),
    ):  # fmt: skip
        self.columns, self._kept = dict(columns), shards
        self.paths = [kept.path for kept in shards]
        self._shards = [IndexedShard(kept.path, kept.stamp, kept.digest) for kept in shards]
        self.checked = sum(kept.digested for kept in shards)
        present = {name: self._present(name) for name in columns}
        filtering = [present[name] for name in columns if name not in extra]
        keep = functools.reduce(np.logical_or if missing == "mask" else np.logical_and, filtering)
        self._check_columns(present, keep, missing, extra)
        if not keep.all():
            parts = np.split(keep, np.cumsum([len(kept.keys) for kept in shards])[:-1])
            for kept, rows in zip(shards, parts, strict=True):
                kept.keep(rows)
            present = {name: self._present(name) for name in columns}
        self._starts = [0, *itertools.accumulate(len(kept.keys) for kept in shards)]
        self.dropped = len(keep) - len(self)
        self._drop_columns([name for name in columns if name in extra and not present[name].any()])
        self._inside_json = {name for name, column in self.columns.items() if name in extra and is_inside_json(column)}
        self.fingerprint = _fingerprint(shards, len(self))
        self._reader = FieldReader()
        specs = {name: self._probe(name, present[name]) for name in self.columns}
        self._drop_columns([name for name, spec in specs.items() if spec is None])
        self.specs = {name: spec for name, spec in specs.items() if spec is not None}
        self.optional = {name for name in self.columns if name in self._inside_json or not present[name].all()}

    def _present(self, name: str) -> np.ndarray:
        return np.concatenate([kept.places[name].present() for kept in self._kept])

    def _drop_columns(self, names: list[str]) -> None:
        self.columns = {name: column for name, column in self.columns.items() if name not in names}

    def _check_columns(
        self, present: dict[str, np.ndarray], keep: np.ndarray, missing: Missing, extra: Collection[str]
    ) -> None:
        """Raise `DataError` if a column is in no sample, or in too few for `missing`, or no sample is kept."""
        wanted = {name: column for name, column in self.columns.items() if name not in extra}
        for name, column in wanted.items():
            has = present[name]
            if not has.any():
                raise DataError(
                    f"columns.{name}: no sample has the field {column.field!r}{_fields_hint(column, self._kept)}"
                )
            if missing == "error" and not has.all():
                row = int(np.argmin(has))  # the first that lacks it
                key, path = next(itertools.islice(((key, x.path) for x in self._kept for key in x.keys), row, None))
                raise DataError(
                    f"columns.{name}: {int((~has).sum())} of {len(has)} samples lack {column.field!r}, the first is "
                    f"{printable(_text(key))} in {path}; data.missing: drop leaves such samples out, mask keeps them"
                )
        if not keep.any():
            fields = ", ".join(column.field for column in wanted.values())
            where = ", ".join(str(path) for path in self.paths[:3])
            raise DataError(f"none of {counted(len(keep), 'sample')} in {where} has all of {fields}")

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, i: int) -> Sample:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        sample = {}
        for name in self.columns:
            try:
                array = self._decode(i, name)
                if array is not None:
                    sample[name] = require_spec(name, array, self.specs[name])
            except SampleError as error:
                if not (isinstance(error, NoValueError) and name in self._inside_json):
                    raise type(error)(error.reason, name, f"{self.shard(i)}: {self.key(i)}") from None
        return sample

    def has(self, name: str) -> np.ndarray:
        """Return bool [n]: which samples have a column's field. None has where there is no such column."""
        if name not in self.columns:
            return np.zeros(len(self), dtype=bool)
        return self._present(name)

    def key(self, i: int) -> str:
        shard = self._shard(i)
        return _text(self._kept[shard].keys[i - self._starts[shard]])

    def shard(self, i: int) -> str:
        return str(self.paths[self._shard(i)])

    def _shard(self, i: int) -> int:
        return bisect.bisect_right(self._starts, i) - 1

    def _decode(self, i: int, name: str) -> np.ndarray | None:
        """Read and decode one column of a sample, None if the sample lacks its field. Raise `SampleError`."""
        shard, column = self._shard(i), self.columns[name]
        kept, row = self._kept[shard], i - self._starts[shard]
        place = kept.places[name].at(row)
        if place is None:
            return None
        field = field_alternatives(column)[place.choice]
        refuse_larger(place.size, MAX_BYTES)
        location = FieldLocation(bytes(kept.keys[row]), field, place.offset, place.size, place.headers, place.digest)
        return decode_field(column, field, self._reader.read(self._shards[shard], location))

    def _probe(self, name: str, present: np.ndarray) -> ArraySpec | None:
        """Return the spec of a column, from nine samples spread over those that have it, or else from others.

        Return None for an extra column inside json that no sample has. Raise `DataError` if nothing decodes,
        `StorageError` if the disk fails.
        """
        rows = range(len(self)) if present.all() else np.flatnonzero(present).tolist()
        spread = [rows[k] for k in spread_indices(len(rows), _PROBED).tolist()]
        more = spread_indices(len(rows), _SEARCHED).tolist() if name in self._inside_json else []
        arrays, failures, absent, texts = [], [], 0, {}
        for i in dict.fromkeys([*spread, *rows[:_FALLBACK], *(rows[k] for k in more)]):
            if arrays and len(arrays) + len(failures) + absent >= len(spread):
                break
            try:
                if (array := self._decode(i, name)) is not None:
                    arrays.append(array)
            except SampleError as error:
                if isinstance(error, ReadError) and not isinstance(error, ShardGoneError):
                    raise StorageError(f"{self.shard(i)}: {error.reason}") from None
                if isinstance(error, NoValueError) and name in self._inside_json:
                    absent += 1
                    continue
                failures.append(f"{self.shard(i)}: {self.key(i)}: {error.reason}")
                texts.update(dict.fromkeys(error.texts if isinstance(error, UnnamedTextError) else ()))
        if arrays:
            return common_spec(name, arrays)
        if absent and not failures:
            return None
        tried = counted(len(failures), "sample")
        if texts:
            examples = ", ".join(printable(text[:40]) for text in sorted(texts)[:12])
            raise DataError(
                f"columns.{name}: {self.columns[name].field!r} holds text; list the texts in the order of their class "
                f"numbers, names: [{examples}{', ...' if len(texts) > 12 else ''}] (seen in {tried})"
            )
        raise DataError(f"columns.{name}: of {tried} tried none could be decoded; {failures[0]}")


def _fields_hint(column: Column, shards: list[KeptIndex]) -> str:
    """Return the nearest field, and the fields that there are, for a message."""
    fields: Counter[str] = Counter()
    for kept in shards:
        fields.update(kept.counts)
    close = difflib.get_close_matches(column.field, fields, n=1)
    nearest = f"; did you mean {close[0]!r}?" if close else ""
    listed = ", ".join(f"{printable(field)} in {n}" for field, n in fields.most_common(12))
    numbered = next((f"; {hint}" for kept in shards for hint in kept.hints), "")
    return f"{nearest} (fields of these shards: {listed}){numbered}"


def _fingerprint(shards: list[KeptIndex], samples: int) -> str:
    parts = [f"{kept.digest} {kept.stamp.size}" for kept in shards]
    return hashlib.blake2b("\n".join([*parts, str(samples)]).encode(), digest_size=16).hexdigest()


def _text(key: np.ndarray) -> str:
    return bytes(key).decode()
