"""Plain JPEG files to arrays, by simplejpeg.

in   the bytes of a field
out  uint8 [c, h, w], the pixels that Pillow gives; None if Pillow must decide what the bytes are

Pillow reads headers in Python, feeds libjpeg in parts and converts rows: a third of the time of a photograph, and four
fifths of that of a picture of 32 pixels. Both libraries bring libjpeg-turbo, whose arithmetic is exact, so the pixels
are equal. Pillow decides about all that is not plain: damaged bytes, CMYK, more than 8 bits.
Format: ITU-T T.81, annex B.
"""

from typing import NamedTuple

import numpy as np

try:
    import simplejpeg
except ImportError:  # a machine for which there is no wheel; Pillow gives the same pixels
    simplejpeg = None

_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended and progressive frames with Huffman codes
_TABLES = (0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0))  # further segments that may stand before the first scan
_SCAN, _EXIF = 0xDA, 0xE1


class JpegHeader(NamedTuple):
    """What the segments before the first scan say."""

    channels: int
    height: int
    width: int
    may_be_turned: bool  # whether it has a segment that may hold an orientation


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """Return the header of a picture of one or three channels of 8 bits; None if anything about it is unusual."""
    if data[:3] != b"\xff\xd8\xff":
        return None
    place, frame, may_be_turned = 2, None, False
    while place + 4 <= len(data) and data[place] == 0xFF:
        kind, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if kind == _SCAN:
            return None if frame is None else JpegHeader(*frame, may_be_turned)
        if kind in _FRAMES:
            bits, channels = data[place + 4], data[place + 9] if place + 9 < len(data) else 0
            height, width = (int.from_bytes(data[place + at : place + at + 2], "big") for at in (5, 7))
            if frame is not None or bits != 8 or channels not in (1, 3) or length != 8 + 3 * channels:
                return None
            frame = channels, height, width
        elif kind not in _TABLES or length < 2:
            return None
        may_be_turned |= kind == _EXIF
        place += 2 + length
    return None


def decode_plain_jpeg(data: bytes, header: JpegHeader) -> np.ndarray | None:
    """Return uint8 [c, h, w], not turned upright; None if the bytes are damaged, even if they can be decoded."""
    if simplejpeg is None:
        return None
    try:
        pixels = simplejpeg.decode_jpeg(data, "RGB" if header.channels == 3 else "GRAY").transpose(2, 0, 1)
    except ValueError:  # also for a warning of libjpeg
        return None
    return pixels if pixels.shape == header[:3] else None
