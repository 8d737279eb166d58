"""Thousands of damaged and odd fields: each ends in an array or a reason, in bounded time and memory."""

import contextlib
import json

import numpy as np
import pytest
from damaging import damaged, npz
from shard_making import image_bytes, npy, pixels

from mvssl.data import SampleError
from mvssl.data.decoding import check_field, decode_field
from mvssl.recipe import Column

NUMBERS = [0, 1, -1, 255, 2**16, 2**31, 2**32 - 1, 2**62, 2**63 - 1, -(2**63)]


def wav(rate: int = 8000, channels: int = 1, bits: int = 16, samples: int = 400) -> bytes:
    body = np.random.default_rng(0).bytes(samples * channels * bits // 8)
    kind = (1).to_bytes(2, "little") + channels.to_bytes(2, "little") + rate.to_bytes(4, "little") + bytes(6)
    kind += bits.to_bytes(2, "little")
    chunks = b"fmt " + (16).to_bytes(4, "little") + kind + b"data" + len(body).to_bytes(4, "little") + body
    return b"RIFF" + (len(chunks) + 4).to_bytes(4, "little") + b"WAVE" + chunks


def npy_with_header(shape: str, dtype: str = "<f4") -> bytes:
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
        *(npy_with_header(f"({n},)") for n in NUMBERS),
        *(npy_with_header(shape) for shape in ("(0, 2**9)", "()", "(-1, -64)", "(1.5,)", "(True,)", "None", "(" * 90)),
        npy_with_header(f"({'9' * 5000},)"),
        *(
            npy_with_header("(64,)", kind)
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


def test_an_npz_of_a_million_entries_is_refused_by_its_table_of_contents(bounds):
    entry = b"PK\1\2" + bytes(42)
    size = (len(entry) * 100_000).to_bytes(4, "little")
    data = entry * 100_000 + b"PK\5\6" + bytes(4) + b"\xff\xff" * 2 + size + bytes(6)
    with pytest.raises(SampleError, match="table of contents"):
        decode_field(Column(field="npz"), "npz", data)
