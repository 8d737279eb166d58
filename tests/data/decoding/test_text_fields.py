import json

import numpy as np
import pytest

from mvssl.data import SampleError
from mvssl.data.decoding import decode_field
from mvssl.recipe import Column


def column(field: str = "png", **options) -> Column:
    return Column.model_validate({"field": field, **options})


@pytest.mark.parametrize(
    ("field", "data", "options", "expected", "dtype"),
    [
        ("cls", b"7\n", {}, 7, np.int64),
        ("txt", b" 3 ", {}, 3, np.int64),
        ("txt", b"2.5", {}, 2.5, np.float32),
        ("json", b"4", {}, 4, np.int64),
        ("json", b'{"a": {"b": [5, 6.5]}}', {"path": "a.b.1"}, 6.5, np.float32),
        ("json", b'{"a": [1, 2]}', {"path": "a"}, [1, 2], np.int64),
        ("json", b'{"a": true}', {"path": "a"}, 1, np.int64),
        ("json", b'{"c": [0, 3]}', {"path": "c", "classes": 5}, [1, 0, 0, 1, 0], np.float32),
        ("json", b'{"c": []}', {"path": "c", "classes": 3}, [0, 0, 0], np.float32),
        ("cls", b"1", {"classes": 3}, [0, 1, 0], np.float32),
    ],
)
def test_labels_and_metadata(field, data, options, expected, dtype):
    found = decode_field(column(field, **options), field, data)
    assert (found.dtype, found.tolist()) == (dtype, expected)


def test_json_numbers_that_are_too_large_are_bad_samples():
    with pytest.raises(SampleError):
        decode_field(column("json"), "json", json.dumps(10**30).encode())


@pytest.mark.parametrize(
    ("field", "data", "options", "expected"),
    [
        ("json", b'{"who": "theo"}', {"path": "who"}, 1),
        ("txt", b"nicolas", {}, 2),
        ("json", b'{"heard": ["nicolas", "george"]}', {"path": "heard", "classes": 4}, [1, 0, 1, 0]),
    ],
)
def test_texts_become_the_numbers_of_their_names(field, data, options, expected):
    named = column(field, names=["george", "theo", "nicolas"], **options)
    assert decode_field(named, field, data).tolist() == expected
    with pytest.raises(SampleError, match="'lucas' is none of the names george, theo"):
        decode_field(named, "txt", b"lucas")


NAMED = {"names": ["cat", "dog", "7"]}


@pytest.mark.parametrize(
    ("field", "data", "expected"),
    [
        ("cls", b"dog\n", 1),
        ("cls", b"1", 1),
        ("cls", b"7", 2),  # a name, before it is a number
        ("txt", b"0", 0),
        ("json", b"2", 2),
        ("json", b'["dog", 0]', [1, 0]),
        ("cls", b"\xef\xbb\xbfcat", 0),
    ],
)
def test_texts_become_class_numbers_by_their_place_in_names(field, data, expected):
    assert decode_field(column(field, **NAMED), field, data).tolist() == expected


@pytest.mark.parametrize(
    ("field", "data", "message"),
    [
        ("cls", b"cow", "'cow' is none of the names cat, dog, 7, nor a number from 0 to 2"),
        ("cls", b"3", "'3' is none of the names"),
        ("cls", b"-1", "'-1' is none"),
        ("json", b"true", "True is none"),
        ("json", b"1.5", "1.5 is none"),
        ("json", b'["dog", "cow"]', "'cow' is none"),
        ("cls", b"1\x1b[2J", r"'1\\x1b\[2J' is none"),
    ],
)
def test_a_text_outside_of_names_is_refused_with_the_accepted_names(field, data, message):
    with pytest.raises(SampleError, match=message):
        decode_field(column(field, **NAMED), field, data)


@pytest.mark.parametrize("field", ["cls", "txt", "json"])
def test_a_byte_order_mark_is_no_part_of_a_text(field):
    assert decode_field(column(field), field, b"\xef\xbb\xbf12\n").tolist() == 12


@pytest.mark.parametrize("data", [b"1_000", "١".encode(), b"0x10", b"1__5.0"])
def test_numbers_that_only_python_accepts_are_refused(data):
    with pytest.raises(SampleError):
        decode_field(column("cls"), "cls", data)


@pytest.mark.parametrize("data", [b"9" * 5000, b"[" * 100_000, b'{"a": ' * 100_000])
def test_json_beyond_the_limits_of_python_is_a_reason(data):
    with pytest.raises(SampleError, match="no readable json"):
        decode_field(column("json"), "json", data)
