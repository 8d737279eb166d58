"""Pictures that Pillow does not write: PNGs of 16 bits per channel, and any picture with an EXIF orientation."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # channels -> PNG's colour type


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def deep_png(array: np.ndarray, *more: bytes) -> bytes:
    """A PNG of uint16 [h, w, c], every row with another of PNG's five filters."""
    height, width, channels = array.shape
    rows = np.frombuffer(array.astype(">u2").tobytes(), np.uint8).reshape(height, -1).astype(int)
    step = 2 * channels
    left = np.pad(rows, [(0, 0), (step, 0)])[:, :-step]
    above = np.pad(rows, [(1, 0), (0, 0)])[:-1]
    corner = np.pad(above, [(0, 0), (step, 0)])[:, :-step]
    guess = left + above - corner
    near = np.stack([abs(guess - left), abs(guess - above), abs(guess - corner)])
    paeth = np.choose(near.argmin(0), [left, above, corner])
    taken = np.stack([np.zeros_like(rows), left, above, (left + above) // 2, paeth])
    lines = [bytes([y % 5]) + ((rows[y] - taken[y % 5, y]) % 256).astype(np.uint8).tobytes() for y in range(height)]
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[channels], 0, 0, 0)
    body = zlib.compress(b"".join(lines))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def deep(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 65536, shape, np.uint16)


def oriented(array: np.ndarray, orientation: int, format: str, **options) -> bytes:
    """A picture whose stored pixels are `array` and whose EXIF says how to turn them."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(array).save(file, format, exif=exif, **options)
    return file.getvalue()
