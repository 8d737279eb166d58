"""Bytes of a field to an array. Only the formats of one table are decoded, and none of them can run code.

in   a column of the recipe, the name of a field, its bytes
out  jpg png webp avif ...   uint8 [c, h, w]; float32 [c, h, w] for more than 8 bits (`mvssl.data.decoding.images`)
     npy npz                 uint8 stays, everything else float32, in its own shape: [c, h, w], [c, t] or [d]
     wav                     float32 [c, t] in -1 .. 1, at the column's rate
     cls txt json            int64 or float32, a scalar or [d]; float32 [classes] if the column counts classes
or a `SampleError` that says what is wrong and what to do
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mvssl.data.decoding.arrays import (
    MAX_BYTES,
    as_numbers,
    channels_unclear,
    fit_length,
    open_npz,
    read_npy,
    read_npz,
)  # fmt: skip
from mvssl.data.decoding.file_signatures import extension
from mvssl.data.decoding.images import IMAGE_FORMATS, check_image_end, decode_jpeg, fit_bands, image_array, read_image
from mvssl.data.decoding.text_fields import check_class, decode_json, decode_text, parse_json_field, parse_text_field
from mvssl.data.decoding.wav import read_wav, resample
from mvssl.data.sample_errors import SampleError, as_sample_errors, refuse_larger
from mvssl.recipe.schema import Column


class FieldFormat(NamedTuple):
    """What is done with the bytes of one format. Each function raises `SampleError`, or anything on damaged bytes."""

    decode: Callable[[Column, bytes], np.ndarray]  # the array of a batch
    check: Callable[[bytes], object]  # decode fully, without a column
    check_end: Callable[[bytes], object]  # look for a cut end, which costs little


def decode_field(column: Column, field: str, data: bytes) -> np.ndarray:
    """Return the array that `column` makes of the bytes of `field`. Raise `SampleError`."""
    kind = extension(field)
    if not data:
        raise SampleError("it is empty")
    refuse_larger(len(data), MAX_BYTES)
    with as_sample_errors(kind):
        array = FIELD_FORMATS[kind].decode(column, data)
    return require_finite(array)


def check_field(field: str, data: bytes) -> None:
    """Raise `SampleError` if no column could use the bytes of `field`."""
    kind = extension(field)
    if not data:
        raise SampleError("it is empty")
    with as_sample_errors(kind):
        FIELD_FORMATS[kind].check(data)


def require_finite(array: np.ndarray) -> np.ndarray:
    """Return `array`. Raise `SampleError` if a value is NaN or infinite."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise SampleError(f"{int((~np.isfinite(array)).sum())} of {array.size} values are NaN or infinite")
    return array


def prepare_array(column: Column, array: np.ndarray) -> np.ndarray:
    """Return an array with numbers and shape as a batch holds them: channels first, at the column's size and length.

    Raise `SampleError` if the array holds no numbers, has more than three dimensions, or its channels are unclear.
    """
    if array.dtype.kind not in "buif":
        raise SampleError(f"an array of {array.dtype}; numbers are accepted")
    if array.ndim > 3:
        raise SampleError(f"an array of {array.ndim} dimensions; [c, h, w], [c, t] and [d] are accepted")
    if "channels_last" not in column.model_fields_set and (unclear := channels_unclear(array.shape)):
        raise SampleError(f"{unclear}; write channels_last: true to turn it, or false to take it as it is")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        if array.ndim == 0:
            return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        array = as_numbers(np.moveaxis(array, -1, 0) if column.channels_last else array)
        if column.nan is not None and array.dtype == np.float32:
            array = np.where(np.isnan(array), np.float32(column.nan), array)
    if column.size is not None and array.ndim >= 2:
        array = fit_bands(array[None] if array.ndim == 2 else array, column)  # [h, w] with a size is an image
    return array if column.length is None or array.ndim == 3 else fit_length(array, column.length)


def _check_array(array: np.ndarray) -> None:
    """Raise `SampleError` if no column could take the array."""
    require_finite(prepare_array(Column(field="npy", channels_last=False), array))


def _check_npy_end(data: bytes) -> None:
    array = read_npy(data)
    if array.dtype.kind not in "buif" or array.ndim > 3:
        raise SampleError(f"an array {list(array.shape)} of {array.dtype}; numbers [c, h, w], [c, t], [d] are read")
    if not array.size:
        raise SampleError(f"an empty array {list(array.shape)}")


def _decode_npz(column: Column, data: bytes) -> np.ndarray:
    with open_npz(data) as archive:
        return prepare_array(column, read_npz(archive, column.path))


def _check_npz(data: bytes) -> None:
    with open_npz(data) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        for array in (read_npz(archive, name) for name in names):
            if len(names) == 1 or array.dtype.kind in "buif":  # text may stand beside the arrays of columns
                _check_array(array)


def _decode_wav(column: Column, data: bytes) -> np.ndarray:
    sound, rate = read_wav(data)
    sound = sound.mean(0, keepdims=True) if column.mode == "mono" else sound
    sound = resample(sound, rate, column.rate or rate)
    return sound if column.length is None else fit_length(sound, column.length)


def _image_format(ending: str) -> FieldFormat:
    jpeg = ending in ("jpg", "jpeg")
    return FieldFormat(
        lambda column, data: (
            decode_jpeg(column, data, ending) if jpeg else image_array(column, read_image(data, ending))
        ),
        lambda data: read_image(data, ending),
        lambda data: check_image_end(data, ending),
    )


def _skip(_: bytes) -> None:
    """A format whose end is not checked."""


FIELD_FORMATS: dict[str, FieldFormat] = {
    **{ending: _image_format(ending) for ending in IMAGE_FORMATS},
    "npy": FieldFormat(
        lambda column, data: prepare_array(column, read_npy(data)),
        lambda data: _check_array(read_npy(data)),
        _check_npy_end,
    ),
    "npz": FieldFormat(_decode_npz, _check_npz, _skip),
    "wav": FieldFormat(_decode_wav, lambda data: require_finite(read_wav(data)[0]), read_wav),
    "json": FieldFormat(decode_json, parse_json_field, _skip),
    "cls": FieldFormat(decode_text, check_class, _skip),
    "txt": FieldFormat(decode_text, parse_text_field, _skip),
}
