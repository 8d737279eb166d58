"""Thousands of damaged and odd inputs: each ends in a result or in an error of mvssl, in bounded time and memory."""

import contextlib
import io
import json
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Iterator

import numpy as np
import pytest
from braceexpand import braceexpand
from shard_making import image_bytes, npy, pixels, write_digits, write_tar

from mvssl.data import SampleError
from mvssl.data.decoding import check_field, decode_field
from mvssl.data.shards import find_shards, index_cache
from mvssl.data.shards.index import Index, scan_shard
from mvssl.data.shards.patterns import count_names
from mvssl.errors import DataError, RecipeError
from mvssl.recipe import Column

MUTATED = 150  # inputs that are made of each sound one by damaging its bytes
SECONDS, MEMORY = 20, 160 << 20  # CPU time of all inputs of one test; bytes at most at once, for inputs of some kB

NUMBERS = [0, 1, -1, 255, 2**16, 2**31, 2**32 - 1, 2**62, 2**63 - 1, -(2**63)]


def damaged(sound: bytes, seed: int) -> Iterator[bytes]:
    """Flipped bits, other bytes, cuts, repeats and runs of zeros, and integers that are too large."""
    draw = np.random.default_rng(seed)
    for _ in range(MUTATED):
        data, place = bytearray(sound), int(draw.integers(len(sound)))
        match draw.integers(6):
            case 0:
                data[place] ^= 1 << draw.integers(8)
            case 1:
                data[place : place + 4] = draw.bytes(4)
            case 2:
                del data[place:]
            case 3:
                data[place:place] = data[place : place + 64]
            case 4:
                data[place : place + 32] = bytes(32)
            case 5:
                data[place : place + 8] = (2 ** int(draw.integers(64)) - 1).to_bytes(8, "little")
        yield bytes(data)


@pytest.fixture
def bounds():
    tracemalloc.start()
    begin = time.process_time()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.process_time() - begin < SECONDS
    assert peak < MEMORY


def npz(save=np.savez, **arrays) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def wav(rate: int = 8000, channels: int = 1, bits: int = 16, samples: int = 400) -> bytes:
    body = np.random.default_rng(0).bytes(samples * channels * bits // 8)
    kind = (1).to_bytes(2, "little") + channels.to_bytes(2, "little") + rate.to_bytes(4, "little") + bytes(6)
    kind += bits.to_bytes(2, "little")
    chunks = b"fmt " + (16).to_bytes(4, "little") + kind + b"data" + len(body).to_bytes(4, "little") + body
    return b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + b"WAVE" + chunks


def npy_that_says(shape: str, dtype: str = "<f4") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)


FIELDS = {
    "npy": [npy(np.arange(60).reshape(3, 4, 5).astype(kind)) for kind in ("u1", "f4", ">i2", "?")],
    "npz": [npz(x=np.arange(9.0)), npz(np.savez_compressed, x=np.zeros((3, 8, 8)), y=np.ones(3, bool))],
    "wav": [wav(), wav(44100, 2, 24)],
    "json": [json.dumps({"a": [1, 2.5, None, True, "text", {"b": [[]]}]}).encode()],
    "cls": [b"17", b"cat"],
    "txt": [b"-1.5e3", "é".encode()],
    "png": [image_bytes(pixels(0, 9, 9, 3))],
}
ODD = {
    "npy": [
        *(npy_that_says(f"({n},)") for n in NUMBERS),
        *(npy_that_says(shape) for shape in ("(0, 2**9)", "()", "(-1, -64)", "(1.5,)", "(True,)", "None", "(" * 90)),
        npy_that_says(f"({'9' * 5000},)"),
        *(
            npy_that_says("(64,)", kind)
            for kind in ("O", "V0", "S0", "S1", "<U0", "c16", "M8[s]", "f2", "g", "|b1", "?")
        ),
        npy(np.zeros((0, 3))),
        npy(np.zeros((0, 0, 0), bool)),
    ],
    "npz": [npz(), npz(x=np.array("a")), npz(**{str(i): np.zeros(1) for i in range(40)}), b"PK\5\6" + bytes(18)],
    "wav": [
        wav(1, samples=40),
        wav(768_000),
        wav(samples=0),
        wav(channels=65535, samples=1),
        wav(bits=8),
        wav(4294967295),
    ],
    "json": [
        *(json.dumps(value).encode() for value in [*NUMBERS, 10**400, 1e400, None, [], {}, "", [[1]], [1, "a"], True]),
        *(b"9" * digits for digits in (309, 4300, 5000)),
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"[" + b"[]," * 100_000 + b"[]]",
        b"\xef\xbb\xbf7",
        b"\xff\xfe7\0",
        b'"\\ud800"',
        b"NaN",
        b"-Infinity",
        b"x" * (1 << 23),
    ],
    "cls": [b"", b"\0", b"1_0", "٣".encode(), b"9" * 5000, b"1e5", b"0x10", b" ", b"\xef\xbb\xbf3", b"-1", b"\x1b[31m"],
    "txt": [b"nan", b"inf", b"1e999", b"9" * 5000, b"1_0.5", b"\xef\xbb\xbf2.5", b"\x1b]0;title\x07"],
}
COLUMNS = {
    "npy": [{}, {"size": 4}, {"length": 7}, {"channels_last": True}, {"nan": 0}],
    "npz": [{}, {"path": "x"}],
    "wav": [{"rate": 16000}, {"rate": 16000, "mode": "mono", "length": 300}],
    "json": [{}, {"path": "a.5.b"}, {"path": "a.4", "names": ["text", "b"]}, {"path": "a", "classes": 9}],
    "cls": [{}, {"names": ["cat", "dog"]}, {"classes": 3}],
    "txt": [{}, {"names": ["cat", "dog"]}],
}


@pytest.mark.parametrize("kind", list(FIELDS))
def test_a_field_of_any_bytes_is_an_array_or_a_reason(kind, bounds):
    columns = [Column.model_validate({"field": kind, **options}) for options in COLUMNS.get(kind, [{}])]
    inputs = [*ODD.get(kind, []), *(data for n, sound in enumerate(FIELDS[kind]) for data in damaged(sound, n))]
    messages = []
    for number, data in enumerate(inputs):
        with contextlib.suppress(SampleError):
            check_field(kind, data)
        for column in columns if number < len(ODD.get(kind, [])) else [columns[number % len(columns)]]:
            try:
                array = decode_field(column, kind, data)
            except SampleError as error:
                messages.append(str(error))
            else:
                assert array.dtype in (np.uint8, np.float32, np.int64)
                assert array.ndim <= 3
    assert all(text and text.isprintable() for text in messages)


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
    """A shard whose first header says `text` of the file that follows."""
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
    whole = cache.read_bytes()
    for data in damaged(whole, 0):
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


def test_an_npz_of_a_million_entries_is_refused_by_its_table_of_contents(bounds):
    entry = b"PK\1\2" + bytes(42)
    size = (len(entry) * 100_000).to_bytes(4, "little")
    data = entry * 100_000 + b"PK\5\6" + bytes(4) + b"\xff\xff" * 2 + size + bytes(6)
    with pytest.raises(SampleError, match="table of contents"):
        decode_field(Column(field="npz"), "npz", data)


def patterns(seed: int) -> Iterator[str]:
    draw = np.random.default_rng(seed)
    pieces = ["{", "}", "{", "}", ",", "..", "a", "b", "1", "3", "03", "-2", "0", "\\", "..2", "{1..3}", "{a,b}", "{x}"]
    for _ in range(600):
        yield "".join(draw.choice(pieces, int(draw.integers(1, 9))))


def test_braces_are_counted_as_they_are_expanded():
    seen = 0
    for pattern in patterns(0):
        try:
            counted = count_names(pattern, pattern)
        except RecipeError:
            continue
        expanded = len(list(braceexpand(pattern)))  # ValueError where the braces do not match
        seen += expanded > 1
        assert expanded <= counted <= expanded + 52 * expanded * ("{a..b" in pattern), pattern
    assert seen > 50


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{0..100000000}.tar", "100,000,001 shards"),
        ("{{1..2000}..}{1..2000}.tar", "4,000,000 shards"),
        ("{1..1000}{1..1000}{1..1000}.tar", "1,000,000,000 shards"),
        ("{0..999999999999999999999}.tar", "more than"),
        ("{1..9}" * 400, "more than"),
        ("{a,b}" * 30, "1,073,741,824 shards"),
        ("{" * 60 + "a,b" + "}" * 60, "in each other"),
        ("x" * 5000, "5,000 letters"),
        ("x\0.tar", "letters"),
    ],
)
def test_braces_that_name_too_many_shards_are_refused_at_once(tmp_path, pattern, message, bounds):
    with pytest.raises(RecipeError, match=message) as error:
        find_shards(pattern, tmp_path)
    assert error.value.code == 64
