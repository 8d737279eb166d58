"""Write a table as npz, parquet or shards, block by block. Equal tables give equal bytes.

in   a `Table`, a path that does not exist yet, metadata of the table (JSON)
out  FILE.npz      key [n], shard int32 [n] into shards [s], label [n] or [n, c], VIEW [n, d], about (JSON text)
     FILE.parquet  columns key, shard, label, VIEW (lists); about in the schema's metadata as `mvssl`
     FOLDER        a tar for each shard of the source, with VIEW.npy and cls (or label.npy) of each sample; about.json
"""

import importlib.util
import io
import itertools
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mvssl.data.decoding.arrays import npy_bytes
from mvssl.data.shards.tar import LONGEST_NAME
from mvssl.embedding.table import Column, Table
from mvssl.errors import DataError, RecipeError
from mvssl.process.progress import progress_bar

Write = Callable[[Table, Path, dict[str, Any]], None]


def writer_of(out: Path, views: Iterable[str]) -> Write:
    """Return the function that writes `out`. Raise `RecipeError` for an unknown suffix or a missing library."""
    if out.suffix not in WRITERS:
        raise RecipeError(
            f"--out {out}: {out.suffix} is not accepted; accepted are FILE.npz, FILE.parquet, or a folder of shards "
            "(a name without a dot)"
        )
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise RecipeError(
            f"--out {out}: parquet needs pyarrow, which is not installed: pip install pyarrow; .npz and a folder of "
            "shards need no further library"
        )
    if out.suffix == "" and len({view.lower() for view in views}) < len(list(views)):
        raise RecipeError(f"--out {out}: fields of shards ignore case, so two views of {', '.join(views)} collide")
    return WRITERS[out.suffix]


def write_npz(table: Table, out: Path, about: dict[str, Any]) -> None:
    """Write a file as numpy.savez does, without compression, array by array."""
    blocks = list(table.blocks())
    names = np.array(about["data"]["shards"])
    longest = max(len(key) for block in blocks for key in table.keys(block))
    parts: dict[str, tuple[np.dtype, tuple[int, ...], Callable[[slice], np.ndarray]]] = {
        "key": (np.dtype(f"<U{longest}"), (), lambda block: np.array(table.keys(block), f"<U{longest}")),
        "shard": (np.dtype(np.int32), (), table.shards),
    }
    if table.label is not None:
        parts["label"] = (table.label[1], table.label[0], lambda block: table.labels(block).values)
    for view, width in table.widths.items():
        parts[view] = (table.dtype, (width,), lambda block, view=view: table.features(view, block).values)
    with zipfile.ZipFile(out, "w") as archive:
        for name, (kind, shape, read) in parts.items():
            header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False}
            header["shape"] = (len(table), *shape)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)  # pyright: ignore[reportArgumentType]
                for block in progress_bar(blocks, f"writing {name}", len(blocks)):
                    file.write(np.ascontiguousarray(read(block)).tobytes())
        for name, array in (("shards", names), ("about", np.array(json.dumps(about)))):
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), npy_bytes(array))


def write_parquet(table: Table, out: Path, about: dict[str, Any]) -> None:
    """Write a parquet file with a row group for each block; missing values are null."""
    import pyarrow as pa
    from pyarrow import parquet

    lacking = table.absent()  # few versions of pyarrow can write lists of fixed size with nulls

    def number(name: str, kind: np.dtype, shape: tuple[int, ...]) -> Any:
        one = pa.from_numpy_dtype(kind)
        return pa.list_(one, -1 if name in lacking else shape[0]) if shape else one

    def column(name: str, found: Column) -> Any:
        values, there = found
        if values.ndim == 1:
            return pa.array(values, mask=~there)
        if name not in lacking:
            return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        ends = np.cumsum([0, *there * values.shape[1]], dtype=np.int32)  # a null where a list begins makes it null
        return pa.ListArray.from_arrays(pa.array(ends, mask=np.append(~there, False)), pa.array(values[there].ravel()))

    fields = {"key": pa.string(), "shard": pa.dictionary(pa.int32(), pa.string())}
    if table.label is not None:
        fields["label"] = number("label", table.label[1], table.label[0])
    fields |= {view: number(view, table.dtype, (width,)) for view, width in table.widths.items()}
    schema = pa.schema(list(fields.items()), metadata={"mvssl": json.dumps(about)})
    names, blocks = pa.array(about["data"]["shards"]), list(table.blocks())
    with parquet.ParquetWriter(out, schema, use_dictionary=["shard"]) as writer:  # pyright: ignore[reportArgumentType]
        for block in progress_bar(blocks, f"writing {out.name}", len(blocks)):
            arrays = [pa.array(table.keys(block)), pa.DictionaryArray.from_arrays(table.shards(block), names)]
            arrays += [column("label", table.labels(block))] if table.label is not None else []
            arrays += [column(view, table.features(view, block)) for view in table.views]
            writer.write_batch(pa.record_batch(arrays, schema=schema), row_group_size=len(arrays[0]))


def write_shards(table: Table, out: Path, about: dict[str, Any]) -> None:
    """Write a tar for each shard of the source, with a field for each value that a sample has."""
    out.mkdir()
    (out / "about.json").write_text(json.dumps(about, indent=1))
    files, blocks = _file_names(table), list(table.blocks())
    rows = (row for block in progress_bar(blocks, f"writing {out.name}", len(blocks)) for row in _samples(table, block))
    for shard, samples in itertools.groupby(rows, key=lambda row: row[0]):
        with tarfile.open(out / files[shard], "w") as archive:
            for _, key, fields in samples:
                for field, data in fields.items():
                    member = _member(key, field)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def _member(key: str, field: str) -> tarfile.TarInfo:
    """Return the tar member of a field. Raise `DataError` if its name is too long for readers of shards."""
    name = f"{key}.{field}"
    if len(name.encode()) > LONGEST_NAME:
        raise DataError(
            f"shards accept names of at most {LONGEST_NAME} bytes, and {name[:40]}...{name[-40:]} has "
            f"{len(name.encode())}; .npz and .parquet keep keys of any length, and the cache has the computed features"
        )
    return tarfile.TarInfo(name)


def _file_names(table: Table) -> list[str]:
    """Return the file names of the source's shards, or numbers if two shards share a name."""
    names = [path.name for path in table.source.paths]
    usable = len({name.lower() for name in names}) == len(names) and all(name.endswith(".tar") for name in names)
    return names if usable else [f"{number:06d}.tar" for number in range(len(names))]


def _samples(table: Table, block: slice) -> Iterator[tuple[int, str, dict[str, bytes]]]:
    """Yield the shard, the key and the fields of each row."""
    columns = {f"{view}.npy": table.features(view, block) for view in table.views}
    if table.label is not None:
        labels = table.labels(block)
        columns["cls" if table.label == ((), np.dtype(np.int64)) else "label.npy"] = labels
    for row, (shard, key) in enumerate(zip(table.shards(block).tolist(), table.keys(block), strict=True)):
        there = {field: values[row] for field, (values, has) in columns.items() if has[row]}
        yield shard, key, {f: str(int(x)).encode() if f == "cls" else npy_bytes(x) for f, x in there.items()}


WRITERS: dict[str, Write] = {".npz": write_npz, ".parquet": write_parquet, "": write_shards}
