"""Labels and other numbers from the text of cls, txt and json fields.

in   a column of the recipe, and the bytes of a field, or a value that was read elsewhere
out  int64 or float32, a scalar or [d]; float32 [classes] where the column counts classes; or an `SampleError`
"""

import json
import re
from typing import Any

import numpy as np

from mvssl.data.sample_errors import Absent, SampleError, Unnamed
from mvssl.recipe import Column

MAX_TEXT = 1 << 22  # bytes; json takes up to 40 times as much memory
_WHOLE = re.compile(r"[+-]?[0-9]+")


def text_of(data: bytes) -> str:
    """The text without white space around it and without a byte order mark. Raises `SampleError`."""
    if len(data) > MAX_TEXT:
        raise SampleError(f"{len(data):,} bytes of text; the limit is {MAX_TEXT:,}")
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise SampleError(f"no UTF-8 text: {error.reason} at byte {error.start}; write it as UTF-8") from None


def json_of(data: bytes) -> Any:
    """The value that a json holds. Raises `SampleError`."""
    try:
        return json.loads(text_of(data))
    except RecursionError:
        raise SampleError("no readable json: its lists or tables are too deep in each other") from None
    except ValueError as error:  # garbled, or an integer of thousands of digits
        raise SampleError(f"no readable json: {error}") from None


def from_text(column: Column, data: bytes) -> np.ndarray:
    """The number that a cls or txt holds, or stands for by the column's names."""
    return numbers(column, _number(text_of(data)) if column.names is None else text_of(data))


def _number(text: str) -> int | float | str:
    """The number that is written, or the text itself where it is none."""
    try:
        return int(text) if _WHOLE.fullmatch(text) else text if "_" in text or not text.isascii() else float(text)
    except ValueError:
        return text


def from_json(column: Column, data: bytes) -> np.ndarray:
    """What stands at the column's path. Raises `Absent` where nothing does."""
    value = json_of(data)
    for step in column.path.split(".") if column.path else ():
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError, ValueError):
            has = f" ({', '.join(list(value)[:8])})" if isinstance(value, dict) else ""
            raise Absent(f"path {column.path}: nothing at {step!r}{has}") from None
    if value is None and column.path:
        raise Absent(f"path {column.path}: null")
    return numbers(column, value)


def numbers(column: Column, value: Any) -> np.ndarray:
    """A label or other numbers: int64 or float32; float32 [classes] with ones where the column counts classes."""
    value = value if column.names is None else _numbered(column.names, value)
    texts = tuple(each for each in (value if isinstance(value, list) else [value]) if isinstance(each, str))
    if texts:
        said = f"{texts[0][:40]!r} is neither a number nor a list of numbers"
        raise Unnamed(f"{said}; texts take names: [{texts[0][:40]}, ...]", texts=texts)
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        array = np.empty(0, object)
    if array.size == 0 and column.classes is not None:
        array = np.zeros(0, np.int64)
    if array.dtype.kind not in "biuf" or array.ndim > 1:
        raise SampleError(f"{_short(value)} is neither a number nor a list of numbers")
    if column.classes is None:
        return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
    if array.dtype.kind not in "iu" or (array.size and not 0 <= array.min() <= array.max() < column.classes):
        raise SampleError(f"{_short(value)} is no list of classes from 0 to {column.classes - 1}")
    present = np.zeros(column.classes, np.float32)
    present[np.atleast_1d(array)] = 1
    return present


def _numbered(names: list[str], value: Any) -> Any:
    """Texts, one or a list, as their places in `names`; the number of such a place stands for itself."""
    return [_place(names, each) for each in value] if isinstance(value, list) else _place(names, value)


def _place(names: list[str], given: Any) -> int:
    if isinstance(given, str) and given in names:
        return names.index(given)
    written = isinstance(given, str) and len(given) < 10 and _WHOLE.fullmatch(given)
    number = int(given) if written else given
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(names):
        return number
    more = ", ..." if len(names) > 8 else ""
    raise SampleError(
        f"{_short(given)} is none of the names {', '.join(names[:8])}{more}, nor a number from 0 to {len(names) - 1}"
    )


def _short(value: Any) -> str:
    """The beginning of a value as it is quoted; of a number with thousands of digits, that it is one."""
    try:
        return repr(value)[:40] if isinstance(value, str) else str(value)[:40]
    except ValueError:
        return "a number of thousands of digits"
