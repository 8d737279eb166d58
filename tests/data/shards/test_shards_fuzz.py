"""Thousands of damaged shards and indexes: each ends in an index or an error, in bounded time and memory."""

import contextlib
import io
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from damaging import damaged, npz
from shard_making import npy, write_digits, write_tar

from mvssl.data import SampleError
from mvssl.data.decoding import decode_field
from mvssl.data.shards import index_cache
from mvssl.data.shards.index import Index, scan_shard
from mvssl.errors import DataError
from mvssl.recipe import Column


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_shard_of_any_bytes_is_an_index_or_an_error(tmp_path, format, bounds):
    names = ["a.cls", "b.cls", "n" * 90 + "/" + "ü" * 40 + ".cls", "README"]
    path = write_tar(tmp_path / "x.tar", [(name, b"1") for name in names], format)
    sound = path.read_bytes()[: 512 * 20]  # with less of tar's padding, damage strikes more
    messages = []
    for data in damaged(sound, format):
        path.write_bytes(data)
        try:
            found = scan_shard(path)
        except DataError as error:
            messages.append(str(error))
        else:
            assert found.sizes.max() <= len(data)
    assert all("x.tar" in text for text in messages)


def records_of_pax(text: bytes) -> bytes:
    """A shard whose first header gives the records `text` to the file that follows."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("p")
        entry.type, entry.size = tarfile.XHDTYPE, len(text)
        archive.addfile(entry, io.BytesIO(text))
        archive.addfile(tarfile.TarInfo("a.cls"), io.BytesIO())
    return file.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\n", b"3\n\n", b"0 a=b\n", b"-5 a=b\n", b"9 path=\n", b"99999 path=x\n", b"10 size=-1\n",
        b"11 size=1e9\n", b"8 path\n", b"13 path=../x\n", b"12 path=\xff\xfe\n", b"1" * 5000,
        b"16 size=" + b"9" * 5000 + b"\n",
    ],
)  # fmt: skip
def test_extended_headers_that_make_no_sense_are_errors_or_nothing(tmp_path, text):
    (tmp_path / "x.tar").write_bytes(records_of_pax(text))
    with contextlib.suppress(DataError):
        assert scan_shard(tmp_path / "x.tar").keys.tolist() == [b"a"]


def test_an_index_of_random_bytes_is_rebuilt(tmp_path, bounds):
    (path,) = write_digits(tmp_path, [9])
    true = index_cache.load_index(path, digests=True)
    cache = index_cache.index_files(path)[0]
    intact = cache.read_bytes()
    for data in damaged(intact, 0):
        cache.write_bytes(data)
        same(index_cache.load_index(path), true)


def same(found: Index, true: Index) -> None:
    assert (found.fields, found.digest, found.keys.tolist()) == (true.fields, true.digest, true.keys.tolist())
    assert np.array_equal(found.offsets, true.offsets)
    assert np.array_equal(found.sizes, true.sizes)


OTHER_ARRAYS = [
    np.zeros(0), np.zeros((0, 0), np.int64), np.array(7), np.array(2**63 - 1), np.array([-(2**63)] * 9),
    np.full((9, 2), 2**63 - 1), np.full((9, 2), -(2**63)), np.zeros((9, 2)), np.zeros((2, 9), np.int64),
    np.zeros((9, 2, 1), np.int64), np.array(["x"] * 9), np.array([b"\xff"] * 9), np.zeros((9, 2), "u2"),
    np.zeros((9, 2), "u4"), np.array([np.nan] * 9), np.zeros(3, "M8[s]"), np.arange(7), np.arange(8),
    np.zeros((300, 300), np.int64), np.array(b""), np.array(b"\xc3"), np.array("\ud800"),
]  # fmt: skip


def test_an_index_of_wrong_types_or_sizes_is_rebuilt(tmp_path, bounds):
    (path,) = write_digits(tmp_path, [9])
    true = index_cache.load_index(path, digests=True)
    cache = index_cache.index_files(path)[0]
    with np.load(cache) as saved:
        arrays = dict(saved)
    for name in arrays:
        for other in OTHER_ARRAYS:
            cache.write_bytes(npz(**{**arrays, name: other}))
            same(index_cache.load_index(path), true)
        cache.write_bytes(npz(**{other: array for other, array in arrays.items() if other != name}))
        same(index_cache.load_index(path), true)
    cache.write_bytes(npz(**arrays, more=np.zeros(3)))
    same(index_cache.load_index(path), true)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_an_index_or_npz_that_unpacks_to_gigabytes_is_refused(tmp_path, method, monkeypatch):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive, archive.open("x.npy", "w", force_zip64=True) as entry:
        entry.write(npy(np.zeros(0, np.int8)).replace(b"(0,)", b"(1073741824,)"))
        for _ in range(272 if method == zipfile.ZIP_DEFLATED else 40):  # MiB
            entry.write(bytes(1 << 20))
    data = file.getvalue()
    if method == zipfile.ZIP_LZMA:
        monkeypatch.setattr("mvssl.data.decoding.arrays.MAX_BYTES", 32 << 20)
    tracemalloc.start()
    with pytest.raises(SampleError, match="the limit is"):
        decode_field(Column(field="npz"), "npz", data)
    (path,) = write_digits(tmp_path, [9])
    true = index_cache.load_index(path)
    index_cache.index_files(path)[0].write_bytes(data)
    same(index_cache.load_index(path), true)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
