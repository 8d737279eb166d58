"""Files as they go into shards: their own bytes if a decoder reads them, else png or npy without loss.

in   a file with any of the endings of `READABLE`
out  `SourceFile`: what its bytes are, whatever its name; and its content for a field that several files share
"""

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from mvssl.data.decoding.arrays import MAX_BYTES, npy_bytes
from mvssl.data.decoding.fields import FIELD_FORMATS
from mvssl.data.decoding.file_signatures import detect_kind, extension
from mvssl.data.decoding.images import (
    DEEP_PNG,
    IMAGE_FORMATS,
    WIDE,
    Pixels,
    as_picture,
    channels_first,
    check_pixels,
    open_image,
    read_image,
    upright,
)  # fmt: skip
from mvssl.data.decoding.tiff import inspect_tiff, read_tiff
from mvssl.data.packing.samples import PackLog, png_bytes
from mvssl.data.sample_errors import PartialDecodeError, SampleError, as_sample_errors, refuse_larger
from mvssl.errors import DataError
from mvssl.text import printable

Result = TypeVar("Result")

CONVERTED = ("bmp", "dib", "gif", "ppm", "pgm", "pbm", "pnm", "tif", "tiff")  # rewritten without loss
_OTHER_NAMES = ("jfif", "jpe", "apng", "j2c", "jpc", "jpf", "jpx")  # of formats that are kept
PICTURES = (*IMAGE_FORMATS, *_OTHER_NAMES, *CONVERTED)
READABLE = (*PICTURES, *(ending for ending in FIELD_FORMATS if ending not in IMAGE_FORMATS))

_PNG_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16B")  # modes of Pillow that png stores
_PNM = re.compile(rb"P([2356])" + rb"(?:\s|#[^\n]*\n)+(\d{1,9})" * 3 + rb"\s")
_PASSING = (MemoryError, OSError)  # not faults of the file; Pillow also reports damage as OSError


class SourceFile(NamedTuple):
    file: Path
    kind: str  # what its bytes are: jpg, png, tif, npy, txt ...
    field: str = ""  # png or npy: what stores it without loss beside files of other kinds; empty if nothing does
    notes: tuple[str, ...] = ()  # what a user has to know

    def content(self, field: str, log: PackLog) -> bytes | None:
        """Return the bytes for the field `field`; None if the file cannot be used, which goes to `log`."""
        return _attempt(lambda: _read_content(self, field), self.file, log)


def inspect_file(file: Path, endings: tuple[str, ...], log: PackLog) -> SourceFile | None:
    """Return what a file is, by its header; None if it has another ending or cannot be used, which goes to `log`.

    Raise `DataError` if only a part of the file could be kept.
    """
    ending = extension(file.name)
    if ending not in endings:
        unread = f".{printable(ending)} files are not read here" if "." in file.name else "no ending"
        beside = endings is PICTURES and ending in ("wav", "npy")
        log.leave_out(file, "a wav or npy file beside pictures" if beside else unread)
        return None
    found = _attempt(lambda: _inspect(file), file, log)
    for note in found.notes if found else ():
        log.add_note(note, file)
    return found


def _attempt(work: Callable[[], Result], file: Path, log: PackLog) -> Result | None:
    try:
        return work()
    except PartialDecodeError as error:
        raise DataError(f"{printable(str(file))}: {error.reason}") from None
    except SampleError as error:
        log.leave_out(file, error.reason)
    except OSError as error:
        log.leave_out(file, f"cannot be read: {error.strerror or error}")
    return None


def _inspect(file: Path) -> SourceFile:
    with file.open("rb") as opened:
        head = opened.read(256)
        size = opened.seek(0, os.SEEK_END)
        opened.seek(0)
        if not head:
            raise SampleError("empty file")
        refuse_larger(size, MAX_BYTES)
        if extension(file.name) not in PICTURES:
            return SourceFile(file, extension(file.name))
        kind = detect_kind(head)
        with as_sample_errors(kind, _PASSING):
            return _inspect_picture(file, opened, kind, head)


def _inspect_picture(file: Path, opened: BinaryIO, kind: str, head: bytes) -> SourceFile:
    if kind == "tif":
        return SourceFile(file, kind, *inspect_tiff(opened))
    if kind in ("jp2", "j2k", "avif"):  # rare, and their bits decide who reads them
        pixels = read_image(opened.read(), kind)
        if isinstance(pixels, Image.Image):
            return SourceFile(file, kind, _storage_field(pixels.mode))
        return SourceFile(file, kind, "png" if len(pixels) == 1 and pixels.dtype == np.uint16 else "npy")
    if kind == "ppm" and (match := _PNM.match(head)):
        return SourceFile(file, kind, "npy" if int(match[4]) > 255 else "png")
    if kind not in (*IMAGE_FORMATS, "gif", "bmp", "ppm"):
        what = f"its bytes are those of a {kind} file" if kind else "its bytes are damaged"
        raise SampleError(f"no readable picture: {what}")
    image = open_image(opened, kind)
    deep = kind == "png" and head[24:26] in DEEP_PNG
    return SourceFile(file, kind, "npy" if deep else _storage_field(image.mode))


def _storage_field(mode: str) -> str:
    return "png" if mode in _PNG_MODES else "npy" if mode in WIDE else ""


def common_field(files: list[SourceFile]) -> str:
    """Return one field for all pictures, as a column has one: their own kind if they agree, else png or npy.

    Raise `DataError` if some would lose their colours.
    """
    kinds = {file.kind for file in files}
    if len(kinds) == 1 and kinds <= set(FIELD_FORMATS):
        return kinds.pop()
    lossy = next((file for file in files if not file.field), None)
    if lossy is not None:
        raise DataError(
            f"{printable(str(lossy.file))} stands beside files of other kinds ({', '.join(sorted(kinds))}), and cannot "
            "become png without loss; convert it to RGB, or pack each kind separately"
        )
    return "npy" if any(file.field == "npy" for file in files) else "png"


def _read_content(item: SourceFile, field: str) -> bytes:
    data = item.file.read_bytes()
    with as_sample_errors(item.kind, _PASSING):
        if item.kind == field:
            FIELD_FORMATS[field].check_end(data)
            return data
        pixels = _read_pixels(data, item.kind)
    if field == "npy":
        return npy_bytes(_as_array(pixels))
    return png_bytes(as_picture(pixels) if isinstance(pixels, np.ndarray) else pixels)


def _read_pixels(data: bytes, kind: str) -> Pixels:
    if kind in IMAGE_FORMATS:
        return read_image(data, kind)
    if kind == "tif":
        return read_tiff(io.BytesIO(data))
    match = _PNM.match(data)
    if kind == "ppm" and match and int(match[4]) != 255:
        return _read_pnm(data, match)
    image = open_image(io.BytesIO(data), kind)
    image.load()
    return upright(image)


def _read_pnm(data: bytes, match: re.Match) -> np.ndarray:
    """Return uint8 or uint16 [c, h, w] of a PGM or PPM whose white is not 255, which Pillow rescales.

    Format: http://netpbm.sourceforge.net/doc
    """
    width, height, channels = int(match[2]), int(match[3]), 3 if match[1] in b"36" else 1
    check_pixels(width, height)
    count, body = width * height * channels, data[match.end() :]
    wide = int(match[4]) > 255
    if match[1] in b"23":
        numbers = np.array(body.split(), np.int64)
    else:
        numbers = np.frombuffer(body, ">u2" if wide else "u1", len(body) // (1 + wide))
    if len(numbers) > count:
        raise PartialDecodeError("further pictures after the first, which would be lost; store them separately")
    return numbers.astype(np.uint16 if wide else np.uint8).reshape(height, width, channels).transpose(2, 0, 1)


def _as_array(pixels: Pixels) -> np.ndarray:
    if isinstance(pixels, Image.Image):
        if pixels.mode in ("P", "PA"):
            pixels = pixels.convert("RGBA" if "transparency" in pixels.info or pixels.mode == "PA" else "RGB")
        pixels = channels_first(np.asarray(pixels))
    return np.ascontiguousarray(pixels)
