"""Write a table as npz, parquet or shards, block by block. Equal tables give equal bytes.

in   an `EmbeddingTable`, a path that does not exist yet, metadata of the table (JSON)
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
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mvssl.data.decoding.arrays import npy_bytes
from mvssl.data.shards.tar import LONGEST_NAME
from mvssl.embedding.table import LABEL, EmbeddingTable
from mvssl.errors import DataError, RecipeError
from mvssl.process.progress import progress_bar

OWN = ("key", "shard", "shards", LABEL, "about")  # names in a file that views must not have
Write = Callable[[EmbeddingTable, Path, dict[str, Any]], None]


class Format(NamedTuple):
    """How a table is written, what replaces a missing value, and code that loads a view."""

    write: Write
    missing_features: str
    missing_label: str
    load: str


def choose_format(out: Path, views: Collection[str]) -> Format:
    """Return the format of `out`. Raise `RecipeError` for an unknown suffix, a missing library or a bad view name."""
    if out.suffix not in FORMATS:
        raise RecipeError(
            f"--out {out}: {out.suffix} is not accepted; accepted are FILE.npz, FILE.parquet, or a folder of shards "
            "(a name without a dot)"
        )
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise RecipeError(
            f"--out {out}: parquet needs pyarrow, which is not installed: pip install pyarrow; .npz and a folder of "
            "shards need no further library"
        )
    for view in views:
        if view.lower() in OWN:
            raise RecipeError(f"a view called {view!r} collides with the file's own names: {', '.join(OWN)}")
    if out.suffix == "" and len({view.lower() for view in views}) < len(views):
        raise RecipeError(f"--out {out}: fields of shards ignore case, so two views of {', '.join(views)} collide")
    return FORMATS[out.suffix]


def write_npz(table: EmbeddingTable, out: Path, about: dict[str, Any]) -> None:
    """Write a file as numpy.savez does, without compression, array by array."""
    blocks = list(table.blocks())
    keys = np.dtype(f"<U{max(len(key) for block in blocks for key in table.keys(block))}")
    parts: dict[str, tuple[np.dtype, tuple[int, ...], Callable[[slice], np.ndarray]]] = {
        "key": (keys, (), lambda block: np.array(table.keys(block), keys)),
        "shard": (np.dtype(np.int32), (), table.shards),
    }
    for name, column in table.columns.items():
        parts[name] = column.dtype, column.shape, lambda block, name=name: table.read(name, block)[0]
    with zipfile.ZipFile(out, "w") as archive:
        for name, (dtype, shape, read) in parts.items():
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
            header["shape"] = (len(table), *shape)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)  # pyright: ignore[reportArgumentType]
                for block in progress_bar(blocks, f"writing {name}", len(blocks)):
                    file.write(np.ascontiguousarray(read(block)).tobytes())
        for name, value in (("shards", about["data"]["shards"]), ("about", json.dumps(about))):
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), npy_bytes(np.array(value)))


def write_parquet(table: EmbeddingTable, out: Path, about: dict[str, Any]) -> None:
    """Write a parquet file with a row group for each block; missing values are null."""
    import pyarrow as pa
    from pyarrow import parquet

    lacking = table.absent()  # columns of lists of any size, because not every reader accepts null lists of fixed size

    def column_type(name: str) -> Any:
        column = table.columns[name]
        number = pa.from_numpy_dtype(column.dtype)
        return pa.list_(number, -1 if name in lacking else column.shape[0]) if column.shape else number

    def read(name: str, block: slice) -> Any:
        values, present = table.read(name, block)
        if values.ndim == 1:
            return pa.array(values, mask=~present)
        if name not in lacking:
            return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
        ends = np.cumsum([0, *present * values.shape[1]], dtype=np.int32)  # a null where a list begins makes it null
        starts = pa.array(ends, mask=np.append(~present, False))
        return pa.ListArray.from_arrays(starts, pa.array(values[present].ravel()))

    fields = {"key": pa.string(), "shard": pa.dictionary(pa.int32(), pa.string())}
    fields |= {name: column_type(name) for name in table.columns}
    schema = pa.schema(list(fields.items()), metadata={"mvssl": json.dumps(about)})
    names, blocks = pa.array(about["data"]["shards"]), list(table.blocks())
    with parquet.ParquetWriter(out, schema, use_dictionary=["shard"]) as writer:  # pyright: ignore[reportArgumentType]
        for block in progress_bar(blocks, f"writing {out.name}", len(blocks)):
            arrays = [pa.array(table.keys(block)), pa.DictionaryArray.from_arrays(table.shards(block), names)]
            arrays += [read(name, block) for name in table.columns]
            writer.write_batch(pa.record_batch(arrays, schema=schema), row_group_size=len(arrays[0]))


def write_shards(table: EmbeddingTable, out: Path, about: dict[str, Any]) -> None:
    """Write a tar for each shard of the source. A sample has a field for each value that is present."""
    out.mkdir()
    (out / "about.json").write_text(json.dumps(about, indent=1))
    files, blocks = _file_names(table), list(table.blocks())
    progress = progress_bar(blocks, f"writing {out.name}", len(blocks))
    members = itertools.chain.from_iterable(_read_members(table, block) for block in progress)
    for shard, of_shard in itertools.groupby(members, key=lambda one: one[0]):
        with tarfile.open(out / files[shard], "w") as archive:
            for _, name, content in of_shard:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def _file_names(table: EmbeddingTable) -> list[str]:
    """Return the file names of the source's shards, or numbers if two shards share a name."""
    names = [path.name for path in table.source.paths]
    usable = len({name.lower() for name in names}) == len(names) and all(name.endswith(".tar") for name in names)
    return names if usable else [f"{number:06d}.tar" for number in range(len(names))]


def _read_members(table: EmbeddingTable, block: slice) -> Iterator[tuple[int, str, bytes]]:
    """Yield shard, name and content of each field of each row. Raise `DataError` if shards do not allow the name."""
    fields = {f"{view}.npy": table.read(view, block) for view in table.widths}
    if label := table.columns.get(LABEL):
        fields["label.npy" if label.shape or label.dtype.kind == "f" else "cls"] = table.read(LABEL, block)
    for row, (shard, key) in enumerate(zip(table.shards(block).tolist(), table.keys(block), strict=True)):
        for field, (values, present) in fields.items():
            name = f"{key}.{field}"
            if len(name.encode()) > LONGEST_NAME:
                raise DataError(
                    f"shards accept names of at most {LONGEST_NAME} bytes, and {name[:40]}...{name[-40:]} has "
                    f"{len(name.encode())}; .npz and .parquet keep keys of any length, and the cache has the computed "
                    "features"
                )
            if present[row]:
                yield shard, name, str(int(values[row])).encode() if field == "cls" else npy_bytes(values[row])


FORMATS = {
    ".npz": Format(write_npz, "their rows are NaN", "their label is -1, or NaN", 'numpy.load("{file}")["{view}"]'),
    ".parquet": Format(
        write_parquet, "their value is null", "their value is null", 'pandas.read_parquet("{file}")["{view}"]'
    ),
    "": Format(
        write_shards, "they have no such field", "they have no such field",
        "data.train={file} data.columns.{view}.field={view}.npy, as a view of `name: vector`",
    ),
}  # fmt: skip
