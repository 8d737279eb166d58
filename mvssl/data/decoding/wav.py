"""Sound from RIFF WAVE files, read strictly: a file that is cut short is told apart from a quiet end.

in   the bytes of a wav file: PCM of 8, 16, 24 or 32 bits or IEEE floats of 32 or 64, any number of channels
out  float32 [c, t], PCM scaled to -1 .. 1, and the rate in samples per second
Format: Microsoft and IBM, Multimedia Programming Interface and Data Specifications 1.0, 1991, chapter 3
"""

import struct
from math import gcd

import numpy as np

from mvssl.data.decoding.arrays import MAX_BYTES
from mvssl.data.sample_errors import SampleError

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_MOST_RATE = 768_000  # samples per second
_LONGEST_FILTER = 100_000  # steps of a resampling filter; two rates without a common factor need as many as the larger
_UNKNOWN = 0xFFFFFFFF  # the length that a program writes which cannot go back and fill it in


def read_wav(data: bytes) -> tuple[np.ndarray, int]:
    """float32 [c, t] and the rate. Raises `SampleError`."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise SampleError("no RIFF WAVE file")
    kind, place = None, 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        place += 8
        if name == b"fmt ":
            kind = _kind(data[place : place + size])
        if name == b"data":
            size = len(data) - place if size == _UNKNOWN else size
            if kind is None:
                raise SampleError("its samples come before their format")
            if place + size > len(data):
                raise SampleError(f"cut short: {len(data) - place:,} bytes of sound where the header says {size:,}")
            return _samples(data, place, size, *kind[:2]), kind[2]
        place += size + size % 2  # chunks begin at even places
    raise SampleError("it holds no sound: there is no data chunk")


def _kind(chunk: bytes) -> tuple[str, int, int]:
    """How a sample is written, channels, rate."""
    if len(chunk) < 16:
        raise SampleError("its format chunk is cut short")
    code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if code == _EXTENSIBLE and len(chunk) >= 26:
        (code,) = struct.unpack_from("<H", chunk, 24)
    known = {(_PCM, 8): "u1", (_PCM, 16): "<i2", (_PCM, 24): "i3", (_PCM, 32): "<i4", (_FLOAT, 32): "<f4"}
    known[(_FLOAT, 64)] = "<f8"
    if (code, bits) not in known:
        raise SampleError(f"format {code} with {bits} bits; PCM of 8 to 32 bits and floats of 32 and 64 are read")
    if not channels or not 0 < rate <= _MOST_RATE:
        raise SampleError(f"{channels} channels at {rate} samples per second")
    return known[code, bits], channels, rate


def _samples(data: bytes, place: int, size: int, written: str, channels: int) -> np.ndarray:
    width = int(written[-1])
    count = size // (width * channels) * channels
    if count * 4 > MAX_BYTES:
        raise SampleError(f"{count:,} samples of sound; the limit is {MAX_BYTES // 4:,}")
    if not count:
        raise SampleError("it holds no sound: there are no samples")
    if written == "i3":  # three bytes, to which a lowest one is added
        wide = np.zeros((count, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8, 3 * count, place).reshape(-1, 3)
        found = wide.view("<i4")[:, 0] / 2.0**31
    else:
        found = np.frombuffer(data, written, count, place)
        found = (
            (found - 128.0) / 128 if written == "u1" else found / 2.0 ** (8 * width - 1) if "i" in written else found
        )
    return np.ascontiguousarray(found.reshape(-1, channels).T, np.float32)


def resampled(x: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """[c, t] at another rate, by a polyphase filter that lets nothing alias. Raises `SampleError` beyond MAX_BYTES."""
    if rate == wanted:
        return x
    if x.size * wanted // rate * 4 > MAX_BYTES:
        raise SampleError(
            f"{x.size * wanted // rate:,} samples at {wanted:,} a second; the limit is {MAX_BYTES // 4:,}"
        )
    from scipy.signal import resample_poly  # not above: it is slow to import and few sets need it

    common = gcd(rate, wanted)
    if max(rate, wanted) // common > _LONGEST_FILTER:
        raise SampleError(
            f"{rate:,} samples a second cannot be resampled to {wanted:,}; give it that rate before packing"
        )
    return resample_poly(x, wanted // common, rate // common, axis=1).astype(np.float32)


def fitted(x: np.ndarray, length: int) -> np.ndarray:
    """The first `length` samples of [c, t], with zeros after a recording that is shorter."""
    t = x.shape[-1]
    return x[..., :length] if t >= length else np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, length - t)])
