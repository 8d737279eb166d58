"""TIFF of any bands, depths, compressions, tiles and pages, by tifffile if `mvssl[tiff]` is installed.

in   a TIFF or BigTIFF
out  `TiffInfo`, from its header; its pixels, upright and as they are stored: a Pillow image of 1 or 8 bits with one or
     three bands or a palette; else an array [c, h, w] of the file's own type

Without tifffile, Pillow reads what it reads without loss: one page with one band, or three bands of 8 bits.
Format: TIFF 6.0, Adobe, 1992; GDAL_NODATA, https://www.awaresystems.be/imaging/tiff/tifftags/gdal_nodata.html
"""

import logging
import os
import struct
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from mvssl.data.decoding.images import Pixels, as_picture, check_pixels, turn_upright
from mvssl.data.sample_errors import PartialDecodeError, SampleError

MAX_BYTES = 1 << 30  # of one picture, unpacked

_NODATA, _ORIENTATION = 42113, 274
_BLACK_OR_WHITE, _RGB, _PALETTE, _CMYK, _YCBCR = (0, 1), 2, 3, 5, 6
_JPEG = (6, 7)  # compressions that turn YCbCr to RGB as they are unpacked
_BY_PILLOW = {  # photometric, bits of each band, sample format -> mode of an image that Pillow reads without loss
    (1, (1,), 1): "1",
    (1, (8,), 1): "L",
    (2, (8, 8, 8), 1): "RGB",
    (1, (16,), 1): "I;16",
    (1, (32,), 2): "I",
    (1, (32,), 3): "F",
}
_INSTALL = "run pip install 'mvssl[tiff]'"


class TiffInfo(NamedTuple):
    field: str  # png if it stores the picture without loss, else npy
    notes: tuple[str, ...] = ()  # what a user has to know


def inspect_tiff(file: BinaryIO) -> TiffInfo:
    """Return what the TIFF becomes. Raise `PartialDecodeError` if a part would be lost, tifffile's errors on damage."""
    tifffile = _tifffile()
    if tifffile is None:
        image = _open_by_pillow(file)
        return TiffInfo("png" if image.mode in ("1", "L", "RGB") else "npy")
    _check_pages_exist(file)
    with tifffile.TiffFile(file) as tiff:
        series, page = _only_picture(tiff)
        pages = _count_pages(series)
        notes = [f"its {pages} pages became the channels of one array"] if pages > 1 else []
        nodata = page.tags.get(_NODATA)
        if nodata is not None:
            value = str(nodata.value).strip(" \0")
            notes.append(f"nodata is {value!r}; give it to the view as nodata")
        if page.photometric == 0:
            notes.append("0 is white (MinIsWhite); the numbers are kept as they are stored")
        return TiffInfo(_storage_field(series, page), tuple(notes))


def read_tiff(file: BinaryIO) -> Pixels:
    """Return all pixels, upright. Raise as `inspect_tiff` does."""
    tifffile = _tifffile()
    if tifffile is None:
        image = _open_by_pillow(file)
        image.load()  # Pillow turns a TIFF itself
        return image if image.mode in ("1", "L", "RGB") else np.asarray(image)[None]
    _check_pages_exist(file)
    with tifffile.TiffFile(file) as tiff:
        series, page = _only_picture(tiff)
        array = series.asarray(maxworkers=1)
        if "S" in series.axes and series.axes.index("S") > series.axes.index("X"):
            array = np.moveaxis(array, series.axes.index("S"), 0)
        tag = page.tags.get(_ORIENTATION)
        array = turn_upright(array.reshape(-1, *array.shape[-2:]), 1 if tag is None else int(tag.value))
        if _storage_field(series, page) == "npy":
            return np.ascontiguousarray(array)
        if page.photometric == _PALETTE:
            high, low = page.colormap >> 8, page.colormap & 255
            if ((low != 0) & (low != high)).any():
                raise PartialDecodeError(
                    "a palette of 16-bit colours, which png would cut to 8 bits; convert it to 16-bit RGB"
                )
            image = Image.fromarray(np.ascontiguousarray(array[0])).convert("P")
            image.putpalette(high.astype(np.uint8).T.tobytes())
            return image
        return as_picture(array)


def _tifffile() -> Any:
    try:
        import imagecodecs  # noqa: F401  # decodes most compressions
        import tifffile
    except ImportError:
        return None
    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its messages on odd tags are not for users
    return tifffile


def _check_pages_exist(file: BinaryIO) -> None:
    """Raise `SampleError` if a page that another page names is absent, as in a stack that is cut short."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(16)
    order, big = "<" if head[:2] == b"II" else ">", head[2:4] in (b"+\0", b"\0+")
    counts, entry, offsets = ("Q", 20, "Q") if big else ("H", 12, "I")
    (place,) = struct.unpack_from(order + offsets, head, 8 if big else 4)
    seen: set[int] = set()
    while place:
        if place in seen or place + 8 > size:
            raise SampleError(f"no readable tif: page {len(seen) + 1} is absent; the file is cut short or damaged")
        seen.add(place)
        file.seek(place)
        (count,) = struct.unpack(order + counts, file.read(struct.calcsize(order + counts)))
        after = file.tell() + count * entry
        if after + struct.calcsize(order + offsets) > size:
            raise SampleError(f"no readable tif: page {len(seen)} is cut short")
        file.seek(after)
        (place,) = struct.unpack(order + offsets, file.read(struct.calcsize(order + offsets)))
    file.seek(0)


def _only_picture(tiff: Any) -> tuple[Any, Any]:
    """Return the only picture of the file and its first page. Raise `SampleError`, `PartialDecodeError`."""
    found = [series for series in tiff.series if not series.keyframe.is_reduced]  # overviews are copies
    if len(found) != 1:
        kinds = ", ".join(f"{list(series.shape)} {series.dtype}" for series in found[:4])
        raise PartialDecodeError(
            f"{len(found)} different pictures ({kinds}), of which only one would be kept; store them separately"
        )
    series: Any = found[0]
    page: Any = series.keyframe
    height, width = (int(series.shape[series.axes.index(axis)]) for axis in "YX")
    check_pixels(width, height)
    check_pixels(page.tilewidth, page.tilelength)
    if series.nbytes > MAX_BYTES:
        raise SampleError(f"{series.nbytes:,} bytes unpacked; the limit is {MAX_BYTES:,}, so cut it into tiles")
    if page.subifds and len(series.levels) == 1:
        raise PartialDecodeError(
            "a TIFF with further pictures below its first, which would be lost; store them separately"
        )
    colours = page.photometric
    read = colours in (*_BLACK_OR_WHITE, _RGB, _PALETTE, _CMYK)
    if not (read or (colours == _YCBCR and page.compression in _JPEG)):
        raise PartialDecodeError(f"a TIFF of colours as {getattr(colours, 'name', colours)}; convert it to RGB or gray")
    if series.dtype is None or series.dtype.kind not in "buif":
        raise PartialDecodeError(f"a TIFF of {series.dtype}; store the real and the imaginary part as two bands")
    _count_pages(series)
    return series, page


def _count_pages(series: Any) -> int:
    """Return how many pages become channels. Raise `PartialDecodeError` if an array [c, h, w] cannot hold them."""
    lengths = {axis + str(i): n for i, (axis, n) in enumerate(zip(series.axes, series.shape, strict=True)) if n > 1}
    more = {axis: n for axis, n in lengths.items() if axis[0] not in "YX"}
    if len(more) > 1:
        raise PartialDecodeError(
            f"a TIFF of {list(series.shape)} ({series.axes}), and a picture has [bands, height, width]; "
            "store its pages as files of their own"
        )
    return next((n for axis, n in more.items() if axis[0] != "S"), 1)


def _storage_field(series: Any, page: Any) -> str:
    """Return png for a picture of 1 or 8 bits with one band, three of RGB, or a palette, else npy."""
    bands = int(np.prod(series.shape)) // int(np.prod([series.shape[series.axes.index(axis)] for axis in "YX"]))
    if page.photometric == _PALETTE:
        return "png" if series.dtype == np.uint8 and bands == 1 else "npy"
    plain = bands == 1 or (bands == 3 and page.photometric in (_RGB, _YCBCR) and series.axes.count("S"))
    return "png" if plain and (series.dtype == np.uint8 or (series.dtype == np.bool_ and bands == 1)) else "npy"


def _open_by_pillow(file: BinaryIO) -> Image.Image:
    image = Image.open(file, formats=["TIFF"])
    check_pixels(image.width, image.height)
    tags: Any = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
    bits = tuple(tags.get(258, (1,)))
    kind = tags.get(262), bits, tags.get(339, (1,))[0]
    pages = getattr(image, "n_frames", 1)
    image.seek(0)
    if pages > 1 or _BY_PILLOW.get(kind) != image.mode or _NODATA in tags:
        held = f"{pages} pages" if pages > 1 else f"{len(bands := bits)} bands of {max(bands)} bits"
        raise PartialDecodeError(f"a TIFF of {held}, which Pillow reads only in part; {_INSTALL}")
    return image
