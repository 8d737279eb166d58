"""Bytes of a picture to an array, with all its bits and upright.

in   the bytes of a field, the field's ending, a column of the recipe
out  jpg jpeg png webp avif jp2 j2k   uint8 [c, h, w] if the picture holds at most 8 bits
     png avif jp2 j2k                 float32 [c, h, w] if it holds more, the numbers as they are stored
or a `SampleError` whose text says what is wrong and what to do

The ending fixes the format; it is never guessed from the bytes. Orientation (EXIF, as phones write it) is applied.
"""

import io
import struct
import zlib
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from mvssl.data.decoding.arrays import as_numbers
from mvssl.data.decoding.file_signatures import detect_kind
from mvssl.data.decoding.jpeg import decode_plain_jpeg, read_jpeg_header
from mvssl.data.sample_errors import PartialDecodeError, SampleError
from mvssl.recipe.schema import Column

MAX_PIXELS = 1 << 26  # of one image, 8192 x 8192
IMAGE_FORMATS = {  # ending -> Pillow's name
    "jpg": "JPEG",
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "avif": "AVIF",
    "jp2": "JPEG2000",
    "j2k": "JPEG2000",
}
_CONVERTED_ONLY = {"gif": "GIF", "bmp": "BMP", "ppm": "PPM"}  # `mvssl pack` converts them to png
Pixels = Image.Image | np.ndarray  # an array [c, h, w] if Pillow has no mode that holds all bits

_EIGHT_BITS = {"1": "L", "L": "L", "RGB": "RGB"}  # modes that become channels as they are
WIDE = ("I;16", "I;16B", "I;16L", "I", "F")  # one channel of more than 8 bits
DEEP_PNG = {b"\x10\x02": "RGB", b"\x10\x04": "LA", b"\x10\x06": "RGBA"}  # bit depth and colour type
_MODES = {1: "gray", 3: "rgb"}  # channels of a JPEG -> mode of a column that takes them as they are
_ORIENTATION = 0x0112
_MAY_ORIENT = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
_TURNS = {  # EXIF orientation -> what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(data: bytes, ending: str) -> Pixels:
    """Return the full picture, upright. Raise `SampleError`, and what Pillow raises on damaged bytes."""
    if ending in ("jp2", "j2k"):
        return _jpeg2000(data, ending)
    if ending == "png":
        check_png(data)
    image = open_image(io.BytesIO(data), ending)
    if ending == "png" and data[24:26] in DEEP_PNG:
        return turn_upright(_deep_png(data, image), orientation(image))
    if ending == "avif" and _deep_avif(data):
        return turn_upright(_by_imagecodecs("avif_decode", data, "more than 8 bits"), orientation(image))
    image.load()
    return upright(image)


def decode_jpeg(column: Column, data: bytes, ending: str) -> np.ndarray:
    """Return the array of a column from a JPEG. Raise `SampleError`, and what Pillow raises on damaged bytes."""
    header = read_jpeg_header(data)
    if header is None or header.width * header.height > MAX_PIXELS:
        return image_array(column, read_image(data, ending))
    turned = orientation(open_image(io.BytesIO(data), ending)) if header.may_be_turned else 1
    array = decode_plain_jpeg(data, header)
    if array is None:
        return image_array(column, read_image(data, ending))
    array = turn_upright(array, turned)
    if column.size is None and column.mode in (None, _MODES[len(array)]):
        return as_numbers(array)
    return image_array(column, as_picture(array))


def open_image(file: BinaryIO, ending: str) -> Image.Image:
    """Open a picture of at most `MAX_PIXELS` and one frame; its pixels are not read yet. Raise `SampleError`."""
    format = (IMAGE_FORMATS | _CONVERTED_ONLY)[ending]
    try:
        image = Image.open(file, formats=[format])
    except UnidentifiedImageError:
        file.seek(0)
        kind = detect_kind(file.read(256))
        if kind and IMAGE_FORMATS.get(kind) != format:
            raise SampleError(
                f"no readable {ending}: its bytes are those of a {kind} file; name the field or file .{kind}"
            ) from None
        raise SampleError(f"no readable {ending}: the bytes are damaged") from None
    check_pixels(image.width, image.height)
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a camera's preview beside a JPEG is no second frame
        raise PartialDecodeError(
            f"an animation of {frames} frames, of which only one would be kept; store the frames separately"
        )
    return image


def check_pixels(width: int, height: int) -> None:
    """Raise `SampleError` if a picture has too many pixels, before it is unpacked."""
    if width * height > MAX_PIXELS:
        raise SampleError(f"{width} x {height} pixels; the limit is {MAX_PIXELS:,}, so cut it into tiles")


def orientation(image: Image.Image) -> int:
    """Return the picture's EXIF orientation from 1 to 8; 1 if it has none, or a damaged one."""
    if not any(name in image.info for name in _MAY_ORIENT):
        return 1
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF fails in many ways and does not affect the pixels
        return 1
    return found if found in _TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    """Return the picture, turned by its orientation."""
    turn = _TURNS.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def channels_first(array: np.ndarray) -> np.ndarray:
    """Return [h, w] or [h, w, c] as [c, h, w]."""
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def as_picture(array: np.ndarray) -> Image.Image:
    """Return [c, h, w] of one or three bands as a Pillow image."""
    return Image.fromarray(np.ascontiguousarray(array[0] if len(array) == 1 else array.transpose(1, 2, 0)))


def turn_upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return [c, h, w], turned by its EXIF or TIFF orientation."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(1, 2)
    rows, columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return array[:, :: -1 if rows else 1, :: -1 if columns else 1]


def _deep_png(data: bytes, image: Image.Image) -> np.ndarray:
    """Return uint16 [c, h, w] of a PNG of several channels with 16 bits each.

    Pillow has no such mode and keeps only the upper bytes. So the lower bytes are read a second time. Two channels of
    16 bits are stored as four of 8 bits are, and are read as such.
    """
    mode = DEEP_PNG[data[24:26]]
    if mode == "LA":
        header = data[12:24] + b"\x08\x06" + data[26:29]
        as_bytes = data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]
        four = np.asarray(Image.open(io.BytesIO(as_bytes), formats=["PNG"]))
        return four.view(">u2").transpose(2, 0, 1).astype(np.uint16)
    low = Image.open(io.BytesIO(data), formats=["PNG"])
    low.tile = [(codec, box, offset, f"{mode};16L") for codec, box, offset, _ in low.tile]  # pyright: ignore
    upper, lower = (np.asarray(part).astype(np.uint16) for part in (image, low))
    return (upper << 8 | lower).transpose(2, 0, 1)


def check_png(data: bytes) -> None:
    """Raise `SampleError` if a needed part has a wrong checksum, which Pillow does not check."""
    place, kind = 8, b""
    while data[:4] == b"\x89PNG" and place + 12 <= len(data) and kind != b"IEND":
        (size,), kind = struct.unpack_from(">I", data, place), data[place + 4 : place + 8]
        body = memoryview(data)[place + 4 : place + 8 + size]
        place += 12 + size
        needed = not kind[0] & 32  # a lower-case first letter marks an optional part
        if needed and (place > len(data) or zlib.crc32(body) != struct.unpack_from(">I", data, place - 4)[0]):
            raise SampleError(f"no readable png: its part {kind!r} is cut short or damaged")


def check_image_end(data: bytes, ending: str) -> None:
    """Look for a cut end, which costs little. Decode a picture that seems cut, and raise what `read_image` raises."""
    complete = False
    if ending == "png":
        check_png(data)
        complete = b"IEND" in data[-64:]
    elif ending in ("jpg", "jpeg"):
        complete = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")  # the end of a picture after its last scan
    elif ending == "webp":
        complete = int.from_bytes(data[4:8], "little") + 8 <= len(data)
    if not complete:
        read_image(data, ending)


def _jpeg2000(data: bytes, ending: str) -> Pixels:
    """Return a JPEG 2000. The marker SIZ says how many bits each channel has (ISO/IEC 15444-1 A.5.1)."""
    place = data.find(b"\xff\x4f\xff\x51")
    if place < 0 or place + 42 > len(data):  # the bytes of something else, or a damaged header
        open_image(io.BytesIO(data), ending)
        raise SampleError(f"no readable {ending}: its header is damaged")
    right, lower, left, top = struct.unpack_from(">4I", data, place + 8)
    (count,) = struct.unpack_from(">H", data, place + 40)
    depths = data[place + 42 : place + 42 + 3 * count : 3]
    signed, bits = any(depth & 128 for depth in depths), max(((depth & 127) + 1 for depth in depths), default=0)
    if count <= 4 and not signed and (bits <= 8 or (count == 1 and bits <= 16)):
        image = open_image(io.BytesIO(data), ending)
        image.load()
        # Pillow multiplies more than 8 bits up to 16
        return image if bits <= 8 else (np.asarray(image) >> (16 - bits))[None]
    check_pixels(max(0, right - left) * -(-count // 4), max(0, lower - top))
    what = f"{count} channels of {bits} bits{' with a sign' if signed else ''}"
    return _by_imagecodecs("jpeg2k_decode", data, what)


def _deep_avif(data: bytes) -> bool:
    """Return whether an AVIF holds more than 8 bits. Format: AV1 in ISOBMFF 2.3.3, the box av1C."""
    place = data.find(b"av1C")
    return 0 <= place < len(data) - 6 and bool(data[place + 6] & 0x40)


def _by_imagecodecs(decoder: str, data: bytes, what: str) -> np.ndarray:
    """Return [c, h, w] of a picture of more than 8 bits. Raise `PartialDecodeError` without imagecodecs."""
    try:
        import imagecodecs
    except ImportError:
        raise PartialDecodeError(f"{what}, which Pillow reads only in part; run pip install 'mvssl[tiff]'") from None
    return channels_first(getattr(imagecodecs, decoder)(data))


def image_array(column: Column, image: Pixels) -> np.ndarray:
    """Return uint8 [c, h, w], or float32 [c, h, w] for more than 8 bits, at the column's size and mode."""
    if isinstance(image, np.ndarray):
        return _bands(column, image)
    # palette numbers stay only if the resampling does not mix them
    image = image if image.mode == "P" and column.interpolation == "nearest" else _converted(image, column.mode)
    if column.size is not None:
        image = fit(image, column.size, column.interpolation)
    return as_numbers(channels_first(np.asarray(image)))


def _bands(column: Column, array: np.ndarray) -> np.ndarray:
    """Return float32 of [c, h, w] with more than 8 bits; all channels and alpha, unless the column has a mode."""
    wide = array.astype(np.float32)
    if column.mode is not None and len(wide) > 4:
        raise SampleError(f"an image of {len(wide)} channels has no {column.mode}; leave mode out")
    if column.mode == "rgb":
        if len(wide) < 3:
            raise SampleError("a one-channel image of more than 8 bits has no rgb; leave mode out")
        wide = wide[:3]
    if column.mode == "gray":
        wide = wide[:1] if len(wide) < 3 else np.tensordot([[0.299, 0.587, 0.114]], wide[:3], 1).astype(np.float32)
    return np.ascontiguousarray(fit_bands(wide, column))


def fit_bands(array: np.ndarray, column: Column) -> np.ndarray:
    """Return [c, h, w] at the column's size, band by band."""
    if column.size is None:
        return array
    return np.stack([np.asarray(fit(Image.fromarray(band), column.size, column.interpolation)) for band in array])


def _converted(image: Image.Image, mode: str | None) -> Image.Image:
    if image.mode in WIDE:
        if mode == "rgb":
            raise SampleError(f"a one-channel image of more than 8 bits ({image.mode}) has no rgb; leave mode out")
        wide = np.asarray(image).astype(np.float32)
        return Image.fromarray(wide)
    if mode is not None:
        return image.convert({"rgb": "RGB", "gray": "L"}[mode])
    if image.mode not in _EIGHT_BITS:
        kind = {"P": "a palette image", "RGBA": "an image with transparency", "LA": "an image with transparency"}
        raise SampleError(f"{kind.get(image.mode, 'an image')} ({image.mode}); say mode: rgb or mode: gray")
    return image.convert(_EIGHT_BITS[image.mode])


def fit(image: Image.Image, size: int | tuple[int, int], interpolation: str = "bilinear") -> Image.Image:
    """Resize with the aspect kept, antialiased or nearest, until `size` [height, width] is covered; crop the centre."""
    height, width = (size, size) if isinstance(size, int) else size
    scale = max(height / image.height, width / image.width)
    if scale != 1:
        covered = max(width, round(image.width * scale)), max(height, round(image.height * scale))
        image = image.resize(covered, Image.Resampling[interpolation.upper()])
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
