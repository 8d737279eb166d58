"""Bytes of a field to an array, by an allow-list of decoders; nothing that could run code is ever read.

in   a column of the recipe, the field's name, its bytes
out  jpg png webp avif ...   uint8 [c, h, w]; float32 [c, h, w] for more than 8 bits; see `mvssl.data.images`
     npy npz                 uint8 stays, everything else float32, in its own shape: [c, h, w], [c, t] or [d]
     wav                     float32 [c, t] in -1 .. 1, at the column's rate
     cls txt json            int64 or float32, a scalar or [d]; float32 [classes] where the column counts classes
or an `Undecodable` whose text says what is wrong and what to do about it
"""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from mvssl.data.arrays import read_npy, read_npz
from mvssl.data.faults import Absent, Undecodable
from mvssl.data.images import FORMATS, fit_bands, image_array, read_image
from mvssl.data.kinds import extension
from mvssl.data.wav import fitted, read_wav, resampled
from mvssl.recipe import Column

MAX_BYTES = 1 << 30  # of one field
MAX_TEXT = 1 << 24  # of json, cls and txt


def decode(column: Column, field: str, data: bytes) -> np.ndarray:
    """The array that `column` makes of the bytes of `field`. Raises `Undecodable`, or `Absent` (see there)."""
    decoder = DECODERS[extension(field)]
    if not data:
        raise Undecodable("it is empty")
    if len(data) > MAX_BYTES:
        raise Undecodable(f"{len(data):,} bytes; the limit is {MAX_BYTES:,}")
    try:
        array = decoder(column, data)
    except Undecodable:
        raise
    except Exception as error:  # decoders meet garbage, and say so in many ways
        raise Undecodable(f"no readable {extension(field)}: {error or type(error).__name__}") from None
    return finite(array)


def finite(array: np.ndarray) -> np.ndarray:
    """`array` itself. Raises `Undecodable` where a value is NaN or infinite."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise Undecodable(f"{int((~np.isfinite(array)).sum())} of {array.size} values are NaN or infinite")
    return array


def settle(column: Column, array: np.ndarray) -> np.ndarray:
    """An array's numbers and shape as the batch wants them: see the head of this file."""
    if array.dtype.kind not in "buif":
        raise Undecodable(f"an array of {array.dtype}; numbers are accepted")
    if array.ndim > 3:
        raise Undecodable(f"an array of {array.ndim} dimensions; [c, h, w], [c, t] and [d] are accepted")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        if array.ndim == 0:
            return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        array = np.moveaxis(array, -1, 0) if column.channels_last else array
        # true is 1.0 and no uint8: as a picture, 1 of 255 would be black
        array = np.ascontiguousarray(array, np.uint8 if array.dtype == np.uint8 else np.float32)
        if column.nan is not None and array.dtype == np.float32:
            array = np.where(np.isnan(array), np.float32(column.nan), array)
    if column.size is not None and array.ndim >= 2:
        array = array[None] if array.ndim == 2 else array  # what has a height and a width is an image
        array = fit_bands(array, column)
    return array if column.length is None or array.ndim == 3 else fitted(array, column.length)


def numbers(column: Column, value: Any) -> np.ndarray:
    """A label or other numbers: int64 or float32; float32 [classes] with ones where the column counts classes."""
    value = value if column.names is None else _numbered(column.names, value)
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.empty(0, object)
    if array.size == 0 and column.classes is not None:
        array = np.zeros(0, np.int64)
    if array.dtype.kind not in "biuf" or array.ndim > 1:
        raise Undecodable(f"{str(value)[:40]!r} is neither a number nor a list of numbers")
    if column.classes is None:
        return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
    if array.dtype.kind not in "iu" or (array.size and not 0 <= array.min() <= array.max() < column.classes):
        raise Undecodable(f"{str(value)[:40]} is no list of classes from 0 to {column.classes - 1}")
    present = np.zeros(column.classes, np.float32)
    present[np.atleast_1d(array)] = 1
    return present


def _numbered(names: list[str], value: Any) -> Any:
    """Texts, one or a list, as their places in `names`."""
    given = value if isinstance(value, list) else [value]
    for text in given:
        if text not in names:
            raise Undecodable(f"{str(text)[:40]!r} is none of the names {', '.join(names[:8])}")
    return [names.index(text) for text in given] if isinstance(value, list) else names.index(value)


def _image(ending: str) -> Callable[[Column, bytes], np.ndarray]:
    return lambda column, data: image_array(column, read_image(data, ending))


def _npy(column: Column, data: bytes) -> np.ndarray:
    return settle(column, read_npy(data))


def _npz(column: Column, data: bytes) -> np.ndarray:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return settle(column, read_npz(archive, column.path, MAX_BYTES))


def _wav(column: Column, data: bytes) -> np.ndarray:
    sound, rate = read_wav(data)
    sound = sound.mean(0, keepdims=True) if column.mode == "mono" else sound
    sound = resampled(sound, rate, column.rate or rate)
    return sound if column.length is None else fitted(sound, column.length)


def _text(data: bytes) -> str:
    if len(data) > MAX_TEXT:
        raise Undecodable(f"{len(data):,} bytes of text; the limit is {MAX_TEXT:,}")
    return data.decode().strip()


def _cls(column: Column, data: bytes) -> np.ndarray:
    return numbers(column, int(_text(data)))


def _txt(column: Column, data: bytes) -> np.ndarray:
    text = _text(data)
    if column.names is not None:
        return numbers(column, text)
    try:
        return numbers(column, int(text))
    except ValueError:
        return numbers(column, float(text))


def _json(column: Column, data: bytes) -> np.ndarray:
    value = json.loads(_text(data))
    for step in column.path.split(".") if column.path else ():
        try:
            value = value[int(step)] if isinstance(value, list) else value[step]
        except (KeyError, IndexError, TypeError, ValueError):
            has = f" ({', '.join(list(value)[:8])})" if isinstance(value, dict) else ""
            raise Absent(f"path {column.path}: nothing at {step!r}{has}") from None
    if value is None and column.path:
        raise Absent(f"path {column.path}: null")
    return numbers(column, value)


DECODERS: dict[str, Callable[[Column, bytes], np.ndarray]] = {
    **{ending: _image(ending) for ending in FORMATS},
    "npy": _npy,
    "npz": _npz,
    "wav": _wav,
    "json": _json,
    "cls": _cls,
    "txt": _txt,
}
