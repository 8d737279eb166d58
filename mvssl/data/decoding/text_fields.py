"""Labels and other numbers from the text of cls, txt and json fields.

in   a column of the recipe, and the bytes of a field, or a value from elsewhere
out  int64 or float32, a scalar or [d]; float32 [classes] if the column counts classes; or a `SampleError`
"""

import json
import re
from typing import Any

import numpy as np

from mvssl.data.sample_errors import NoValueError, SampleError, UnnamedTextError, refuse_larger
from mvssl.recipe.schema import Column

MAX_TEXT = 1 << 22  # bytes; json takes up to 40 times as much memory
_INTEGER = re.compile(r"[+-]?[0-9]+")


def parse_text_field(data: bytes) -> str:
    """Return the text without white space around it and without a byte order mark. Raise `SampleError`."""
    refuse_larger(len(data), MAX_TEXT, "bytes of text")
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise SampleError(f"no UTF-8 text: {error.reason} at byte {error.start}; write it as UTF-8") from None


def parse_json_field(data: bytes) -> Any:
    """Return the value in a json. Raise `SampleError`."""
    try:
        return json.loads(parse_text_field(data))
    except RecursionError:
        raise SampleError("no readable json: its lists or tables are nested too deeply") from None
    except ValueError as error:  # damaged, or an integer of thousands of digits
        raise SampleError(f"no readable json: {error}") from None


def check_class(data: bytes) -> None:
    """Raise `SampleError` if a cls holds no text that could be a number or a name."""
    text = parse_text_field(data)  # the names of a column may give a text its number
    if not (text and text.isprintable()):
        raise SampleError(f"{text[:40]!r} is neither a number nor a name")


def decode_text(column: Column, data: bytes) -> np.ndarray:
    """Return the number that a cls or txt holds, or that the column's names give its text."""
    text = parse_text_field(data)
    return to_numbers(column, _parse_number(text) if column.names is None else text)


def _parse_number(text: str) -> int | float | str:
    """Return the number that is written, or the text itself if it is none."""
    try:
        return int(text) if _INTEGER.fullmatch(text) else text if "_" in text or not text.isascii() else float(text)
    except ValueError:
        return text


def decode_json(column: Column, data: bytes) -> np.ndarray:
    """Return the numbers at the column's path. Raise `NoValueError` if there is nothing, or null."""
    value = parse_json_field(data)
    for step in column.path.split(".") if column.path else ():
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError, ValueError):
            keys = f" ({', '.join(list(value)[:8])})" if isinstance(value, dict) else ""
            raise NoValueError(f"path {column.path}: nothing at {step!r}{keys}") from None
    if value is None and column.path:
        raise NoValueError(f"path {column.path}: null")
    return to_numbers(column, value)


def to_numbers(column: Column, value: Any) -> np.ndarray:
    """Return a label or other numbers as int64 or float32, a scalar or [d]. Raise `SampleError`.

    If the column counts classes, return float32 [classes], with ones at the class numbers of `value`.
    """
    if column.names is not None:
        value = (
            [_place(column.names, each) for each in value] if isinstance(value, list) else _place(column.names, value)
        )
    texts = tuple(each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str))
    if texts:
        text = texts[0][:40]
        reason = f"{text!r} is neither a number nor a list of numbers; texts take names: [{text}, ...]"
        raise UnnamedTextError(reason, texts=texts)
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        array = np.empty(0, object)
    if array.size == 0 and column.classes is not None:
        array = np.zeros(0, np.int64)
    if array.dtype.kind not in "biuf" or array.ndim > 1:
        raise SampleError(f"{_quoted(value)} is neither a number nor a list of numbers")
    if column.classes is None:
        return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
    if array.dtype.kind not in "iu" or (array.size and not 0 <= array.min() <= array.max() < column.classes):
        raise SampleError(f"{_quoted(value)} is no list of classes from 0 to {column.classes - 1}")
    present = np.zeros(column.classes, np.float32)
    present[np.atleast_1d(array)] = 1
    return present


def _place(names: list[str], value: Any) -> int:
    """Return the place of a text in `names`. A number of such a place is accepted too."""
    if isinstance(value, str) and value in names:
        return names.index(value)
    written = isinstance(value, str) and len(value) < 10 and _INTEGER.fullmatch(value)
    number = int(value) if written else value
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(names):
        return number
    more = ", ..." if len(names) > 8 else ""
    raise SampleError(
        f"{_quoted(value)} is none of the names {', '.join(names[:8])}{more}, nor a number from 0 to {len(names) - 1}"
    )


def _quoted(value: Any) -> str:
    """Return the beginning of a value for a message."""
    try:
        return repr(value)[:40] if isinstance(value, str) else str(value)[:40]
    except ValueError:
        return "a number of thousands of digits"
