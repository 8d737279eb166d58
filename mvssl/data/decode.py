"""Bytes of a field to an array, by an allow-list of decoders; nothing that could run code is ever read.

in   a column of the recipe, the field's name, its bytes
out  jpg jpeg png webp   uint8 [c, h, w]; float32 [1, h, w] where the image holds more than 8 bits
     npy npz             uint8 stays, everything else float32, in the shape it was saved with: [c, h, w], [c, t] or [d]
     wav                 float32 [c, t] in -1 .. 1, at the column's rate
     cls txt json        int64 or float32, a scalar or [d]; float32 [classes] where the column counts classes
or an `Undecodable` whose text says what is wrong and what to do about it
"""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from mvssl.data.arrays import MAX_BYTES, as_numbers, channels_unclear, open_npz, read_npy, read_npz
from mvssl.data.faults import Undecodable
from mvssl.data.texts import from_json, from_text
from mvssl.data.wav import fitted, read_wav, resampled
from mvssl.recipe import Column

MAX_PIXELS = 1 << 26  # of one image, 8192 x 8192

_EIGHT_BITS = {"1": "L", "L": "L", "RGB": "RGB"}  # modes that become channels as they are
_WIDE = ("I;16", "I;16B", "I;16L", "I", "F")


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


def extension(field: str) -> str:
    """What decides on the decoder: `depth.png` is a png."""
    return field.rpartition(".")[2].lower()


def open_image(data: bytes, format: str) -> Image.Image:
    """The loaded image, of a format that is fixed by its extension and not guessed from its bytes."""
    if format == "PNG" and data[24:26] in (b"\x10\x02", b"\x10\x04", b"\x10\x06"):  # bit depth and colour type
        raise Undecodable("a PNG of several channels with 16 bits each, which Pillow cuts to 8; store it as npy")
    try:
        image = Image.open(io.BytesIO(data), formats=[format])
    except UnidentifiedImageError:
        raise Undecodable(f"no readable {format.lower()}: the bytes are garbage or of another format") from None
    if image.width * image.height > MAX_PIXELS:
        raise Undecodable(f"{image.width} x {image.height} pixels; the limit is {MAX_PIXELS:,}, so cut it into tiles")
    image.load()
    return image


def image_array(column: Column, image: Image.Image) -> np.ndarray:
    """uint8 [c, h, w], or float32 [1, h, w] for more than 8 bits, at the column's size."""
    # a palette's numbers mean nothing once they are mixed, so they are taken as they stand only where none are
    image = image if image.mode == "P" and column.interpolation == "nearest" else _converted(image, column.mode)
    if column.size is not None:
        image = fit(image, column.size, column.interpolation)
    array = np.asarray(image)
    array = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
    return np.ascontiguousarray(array, np.uint8 if array.dtype == np.uint8 else np.float32)


def _converted(image: Image.Image, mode: str | None) -> Image.Image:
    if image.mode in _WIDE:
        if mode == "rgb":
            raise Undecodable(f"a one-channel image of more than 8 bits ({image.mode}) has no rgb; leave mode out")
        wide = np.asarray(image).astype(np.float32)
        return Image.fromarray(wide)
    if mode is not None:
        return image.convert({"rgb": "RGB", "gray": "L"}[mode])
    if image.mode not in _EIGHT_BITS:
        kind = {"P": "a palette image", "RGBA": "an image with transparency", "LA": "an image with transparency"}
        raise Undecodable(f"{kind.get(image.mode, 'an image')} ({image.mode}); say mode: rgb or mode: gray")
    return image.convert(_EIGHT_BITS[image.mode])


def fit(image: Image.Image, size: int | tuple[int, int], interpolation: str = "bilinear") -> Image.Image:
    """Resize, antialiased (or nearest) and with its aspect kept, until `size` is just covered; cut out the centre."""
    height, width = (size, size) if isinstance(size, int) else size
    scale = max(height / image.height, width / image.width)
    if scale != 1:
        covered = max(width, round(image.width * scale)), max(height, round(image.height * scale))
        image = image.resize(covered, Image.Resampling[interpolation.upper()])
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def settle(column: Column, array: np.ndarray) -> np.ndarray:
    """An array's numbers and shape as the batch wants them: see the head of this file."""
    if array.dtype.kind not in "buif":
        raise Undecodable(f"an array of {array.dtype}; numbers are accepted")
    if array.ndim > 3:
        raise Undecodable(f"an array of {array.ndim} dimensions; [c, h, w], [c, t] and [d] are accepted")
    if "channels_last" not in column.model_fields_set and (unclear := channels_unclear(array.shape)):
        raise Undecodable(f"{unclear}; write channels_last: true to turn it, or false to take it as it is")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        if array.ndim == 0:
            return array.astype(np.float32 if array.dtype.kind == "f" else np.int64)
        array = np.moveaxis(array, -1, 0) if column.channels_last else array
        array = as_numbers(array, masks=column.interpolation == "nearest")
        if column.nan is not None and array.dtype == np.float32:
            array = np.where(np.isnan(array), np.float32(column.nan), array)
    if column.size is not None and array.ndim >= 2:
        array = array[None] if array.ndim == 2 else array  # what has a height and a width is an image
        array = np.stack([np.asarray(fit(Image.fromarray(band), column.size, column.interpolation)) for band in array])
    return array if column.length is None or array.ndim == 3 else fitted(array, column.length)


def _image(format: str) -> Callable[[Column, bytes], np.ndarray]:
    return lambda column, data: image_array(column, open_image(data, format))


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
    "jpg": _image("JPEG"),
    "jpeg": _image("JPEG"),
    "png": _image("PNG"),
    "webp": _image("WEBP"),
    "npy": _npy,
    "npz": _npz,
    "wav": _wav,
    "json": from_json,
    "cls": from_text,
    "txt": from_text,
}
