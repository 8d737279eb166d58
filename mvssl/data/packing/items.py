"""Files as they go into shards: their own bytes where a decoder reads them, else png or npy without loss.

in   a file with any of the endings of `READABLE`
out  `Item`: what its bytes are, whatever it is called; and its content for a field that several items share
or   `SampleError` where it is damaged, `Partial` where only a part of it could be kept
"""

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from mvssl.data.decoding import tiff
from mvssl.data.decoding.arrays import read_npy
from mvssl.data.decoding.decode import DECODERS, MAX_BYTES
from mvssl.data.decoding.file_types import extension, kind_of
from mvssl.data.decoding.images import (
    DEEP_PNG,
    FORMATS,
    WIDE,
    Pixels,
    check_pixels,
    check_png,
    open_image,
    read_image,
    upright,
)
from mvssl.data.decoding.wav import read_wav
from mvssl.data.packing.sources import npy_bytes, png_bytes
from mvssl.data.packing.survey import Account
from mvssl.data.sample_errors import Partial, SampleError
from mvssl.errors import DataError
from mvssl.text import printable

Result = TypeVar("Result")

CONVERTED = ("bmp", "dib", "gif", "ppm", "pgm", "pbm", "pnm", "tif", "tiff")  # rewritten without loss
_OTHER_NAMES = ("jfif", "jpe", "apng", "j2c", "jpc", "jpf", "jpx")  # of formats that are kept
PICTURES = (*FORMATS, *_OTHER_NAMES, *CONVERTED)
READABLE = (*PICTURES, *(ending for ending in DECODERS if ending not in FORMATS))

_PNM = re.compile(rb"P([2356])" + rb"(?:\s|#[^\n]*\n)+(\d{1,9})" * 3 + rb"\s")


class Item(NamedTuple):
    file: Path
    kind: str  # what its bytes are: jpg, png, tif, npy, txt ...
    field: str = ""  # png or npy: what holds it without loss beside items of other kinds; empty where nothing does
    notes: tuple[str, ...] = ()  # what a user has to know of it


def examined(file: Path, account: Account) -> Item | None:
    """What a file is, by its header; None where it cannot be used, which goes to the account. Raises `DataError`."""
    found = _attempt(lambda: _examine(file), file, account)
    for note in found.notes if found else ():
        account.note(note, file)
    return found


def packed(item: Item, field: str, account: Account) -> bytes | None:
    """The item as the field `field` holds it; None where it cannot be used, which goes to the account."""
    return _attempt(lambda: _content(item, field), item.file, account)


def _attempt(work: Callable[[], Result], file: Path, account: Account) -> Result | None:
    try:
        return work()
    except Partial as error:
        raise DataError(f"{printable(str(file))}: {error.reason}") from None
    except SampleError as error:
        account.leave(file, error.reason)
    except OSError as error:
        account.leave(file, f"cannot be read: {error.strerror or error}")
    return None


def _examine(file: Path) -> Item:
    with file.open("rb") as opened:
        head = opened.read(256)
        size = opened.seek(0, os.SEEK_END)
        opened.seek(0)
        if not head:
            raise SampleError("empty file")
        if size > MAX_BYTES:
            raise SampleError(f"{size:,} bytes; the limit is {MAX_BYTES:,}")
        if extension(file.name) not in PICTURES:
            return Item(file, extension(file.name))
        kind = kind_of(head)
        with _garbage(kind):
            return _examined(file, opened, kind, head)


@contextmanager
def _garbage(kind: str) -> Iterator[None]:
    """Readers meet garbage, and say so in many ways: all of them become `SampleError`."""
    try:
        yield
    except (SampleError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise SampleError(f"no readable {kind}: {error or type(error).__name__}") from None


def _examined(file: Path, opened: BinaryIO, kind: str, head: bytes) -> Item:
    if kind == "tif":
        found = tiff.examine(opened)
        return Item(file, kind, found.field, found.notes)
    if kind in ("jp2", "j2k", "avif"):  # rare, and their bits decide on who reads them
        found = read_image(opened.read(), kind)
        if isinstance(found, Image.Image):
            return Item(file, kind, _field(found.mode))
        return Item(file, kind, "png" if len(found) == 1 and found.dtype == np.uint16 else "npy")
    if kind == "ppm" and (match := _PNM.match(head)):
        return Item(file, kind, "npy" if int(match[4]) > 255 else "png")
    if kind not in (*FORMATS, "gif", "bmp", "ppm"):
        what = f"its bytes are those of a {kind} file" if kind else "its bytes are garbage or damaged"
        raise SampleError(f"no picture that is read: {what}")
    image = open_image(opened, kind)
    deep = kind == "png" and head[24:26] in DEEP_PNG
    return Item(file, kind, "npy" if deep else _field(image.mode))


def _field(mode: str) -> str:
    if mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16B"):
        return "png"
    return "npy" if mode in WIDE else ""


def common_field(items: list[Item]) -> str:
    """One field for all pictures, as a column has one: their own kind if they agree, else png or npy.

    Raises `DataError` where some would lose their colours.
    """
    kinds = {one.kind for one in items}
    if len(kinds) == 1 and kinds <= set(DECODERS):
        return kinds.pop()
    cut = next((one for one in items if not one.field), None)
    if cut is not None:
        raise DataError(
            f"{printable(str(cut.file))} stands beside files of other kinds ({', '.join(sorted(kinds))}), and cannot "
            "become png without loss; convert it to RGB, or pack each kind apart"
        )
    return "npy" if any(one.field == "npy" for one in items) else "png"


def _content(item: Item, field: str) -> bytes:
    data = item.file.read_bytes()
    with _garbage(item.kind):
        if item.kind == field:
            _check_whole(data, item.kind)
            return data
        pixels = _pixels(data, item.kind)
    if field == "npy":
        return npy_bytes(_array(pixels))
    if isinstance(pixels, np.ndarray):
        pixels = Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return png_bytes(pixels)


def _check_whole(data: bytes, kind: str) -> None:
    """A look for a cut end, which costs little; a picture that seems cut is decoded. Raises what decoders raise."""
    if kind == "npy":
        array = read_npy(data)
        if array.dtype.kind not in "buif" or array.ndim > 3:
            raise SampleError(f"an array {list(array.shape)} of {array.dtype}; numbers [c, h, w], [c, t], [d] are read")
        if not array.size:
            raise SampleError(f"an empty array {list(array.shape)}")
    if kind == "wav":
        read_wav(data)
    if kind not in FORMATS:
        return
    if kind == "png":
        check_png(data)
        whole = b"IEND" in data[-64:]
    elif kind in ("jpg", "jpeg"):
        whole = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")  # the end of a picture after its last scan
    elif kind == "webp":
        whole = int.from_bytes(data[4:8], "little") + 8 <= len(data)
    else:
        whole = False
    if not whole:
        read_image(data, kind)


def _pixels(data: bytes, kind: str) -> Pixels:
    if kind in FORMATS:
        return read_image(data, kind)
    if kind == "tif":
        return tiff.read(io.BytesIO(data))
    match = _PNM.match(data)
    if kind == "ppm" and match and int(match[4]) != 255:
        return _pnm(data, match)
    image = open_image(io.BytesIO(data), kind)
    image.load()
    return upright(image)


def _pnm(data: bytes, match: re.Match) -> np.ndarray:
    """uint8 or uint16 [c, h, w] of a PGM or PPM whose white is not 255, which Pillow rescales.

    http://netpbm.sourceforge.net/doc
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
        raise Partial("further pictures after the first, which would be lost; store them apart")
    return numbers.astype(np.uint16 if wide else np.uint8).reshape(height, width, channels).transpose(2, 0, 1)


def _array(pixels: Pixels) -> np.ndarray:
    if isinstance(pixels, Image.Image):
        if pixels.mode in ("P", "PA"):
            pixels = pixels.convert("RGBA" if "transparency" in pixels.info or pixels.mode == "PA" else "RGB")
        array = np.asarray(pixels)
        pixels = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels)
