"""Bytes of a field to an array, by an allow-list of decoders; nothing that could run code is ever read.

in   a column of the recipe, the field's name, its bytes
out  jpg png webp avif ...   uint8 [c, h, w]; float32 [c, h, w] for more than 8 bits; see `mvssl.data.decoding.images`
     npy npz                 uint8 stays, everything else float32, in its own shape: [c, h, w], [c, t] or [d]
     wav                     float32 [c, t] in -1 .. 1, at the column's rate
     cls txt json            int64 or float32, a scalar or [d]; float32 [classes] where the column counts classes
or an `SampleError` whose text says what is wrong and what to do about it
"""

from collections.abc import Callable

import numpy as np

from mvssl.data.decoding.arrays import MAX_BYTES, as_numbers, channels_unclear, open_npz, read_npy, read_npz
from mvssl.data.decoding.file_types import extension
from mvssl.data.decoding.images import FORMATS, fit_bands, image_array, read_image
from mvssl.data.decoding.texts import from_json, from_text
from mvssl.data.decoding.wav import fitted, read_wav, resampled
from mvssl.data.sample_errors import SampleError
from mvssl.recipe import Column


def decode(column: Column, field: str, data: bytes) -> np.ndarray:
    """The array that `column` makes of the bytes of `field`. Raises `SampleError`, or `Absent` (see there)."""
    decoder = DECODERS[extension(field)]
    if not data:
        raise SampleError("it is empty")
    if len(data) > MAX_BYTES:
        raise SampleError(f"{len(data):,} bytes; the limit is {MAX_BYTES:,}")
    try:
        array = decoder(column, data)
    except SampleError:
        raise
    except Exception as error:  # decoders meet garbage, and say so in many ways
        raise SampleError(f"no readable {extension(field)}: {error or type(error).__name__}") from None
    return finite(array)


def finite(array: np.ndarray) -> np.ndarray:
    """`array` itself. Raises `SampleError` where a value is NaN or infinite."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise SampleError(f"{int((~np.isfinite(array)).sum())} of {array.size} values are NaN or infinite")
    return array


def settle(column: Column, array: np.ndarray) -> np.ndarray:
    """An array's numbers and shape as the batch wants them: see the head of this file."""
    if array.dtype.kind not in "buif":
        raise SampleError(f"an array of {array.dtype}; numbers are accepted")
    if array.ndim > 3:
        raise SampleError(f"an array of {array.ndim} dimensions; [c, h, w], [c, t] and [d] are accepted")
    if "channels_last" not in column.model_fields_set and (unclear := channels_unclear(array.shape)):
        raise SampleError(f"{unclear}; write channels_last: true to turn it, or false to take it as it is")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        if array.ndim == 0:
            return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        array = np.moveaxis(array, -1, 0) if column.channels_last else array
        array = as_numbers(array)
        if column.nan is not None and array.dtype == np.float32:
            array = np.where(np.isnan(array), np.float32(column.nan), array)
    if column.size is not None and array.ndim >= 2:
        array = array[None] if array.ndim == 2 else array  # what has a height and a width is an image
        array = fit_bands(array, column)
    return array if column.length is None or array.ndim == 3 else fitted(array, column.length)


def _image(ending: str) -> Callable[[Column, bytes], np.ndarray]:
    return lambda column, data: image_array(column, read_image(data, ending))


def _npy(column: Column, data: bytes) -> np.ndarray:
    return settle(column, read_npy(data))


def _npz(column: Column, data: bytes) -> np.ndarray:
    with open_npz(data) as archive:
        return settle(column, read_npz(archive, column.path))


def _wav(column: Column, data: bytes) -> np.ndarray:
    sound, rate = read_wav(data)
    sound = sound.mean(0, keepdims=True) if column.mode == "mono" else sound
    sound = resampled(sound, rate, column.rate or rate)
    return sound if column.length is None else fitted(sound, column.length)


DECODERS: dict[str, Callable[[Column, bytes], np.ndarray]] = {
    **{ending: _image(ending) for ending in FORMATS},
    "npy": _npy,
    "npz": _npz,
    "wav": _wav,
    "json": from_json,
    "cls": from_text,
    "txt": from_text,
}
