"""Sound from RIFF WAVE files. A file that is cut short is refused.

in   the bytes of a wav file: PCM of 8, 16, 24 or 32 bits or IEEE floats of 32 or 64, any number of channels
out  float32 [c, t], PCM scaled to -1 .. 1, and the rate in samples per second
Format: Microsoft and IBM, Multimedia Programming Interface and Data Specifications 1.0, 1991, chapter 3
"""

# Not by scipy.io.wavfile: it returns the rest of a file that is cut short, and warns instead of raising; it trusts the
# length in the RIFF header, which streaming programs leave unset. Checks of these need the loop over chunks below.

import struct
from math import gcd

import numpy as np

from mvssl.data.decoding.arrays import MAX_BYTES
from mvssl.data.sample_errors import SampleError, refuse_larger

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_TYPES = {  # format, bits of a sample -> numpy's type; i3 is not one of them
    (_PCM, 8): "u1", (_PCM, 16): "<i2", (_PCM, 24): "i3", (_PCM, 32): "<i4", (_FLOAT, 32): "<f4", (_FLOAT, 64): "<f8",
}  # fmt: skip
_MOST_RATE = 768_000  # samples per second
_LONGEST_FILTER = 100_000  # taps of a resampling filter; two rates without a common factor need as many as the larger
_UNSET = 0xFFFFFFFF  # length that a streaming program writes, because it cannot fill it in later


def read_wav(data: bytes) -> tuple[np.ndarray, int]:
    """Return float32 [c, t] and the rate in samples per second. Raise `SampleError`."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise SampleError("no RIFF WAVE file")
    form, place = None, 12
    while place + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, place)
        place += 8
        if name == b"fmt ":
            form = _read_format(data[place : place + size])
        if name == b"data":
            size = len(data) - place if size == _UNSET else size
            if form is None:
                raise SampleError("its samples come before their format")
            if place + size > len(data):
                raise SampleError(f"cut short: {len(data) - place:,} bytes of sound where the header says {size:,}")
            return _read_samples(data, place, size, *form[:2]), form[2]
        place += size + size % 2  # chunks begin at even places
    raise SampleError("it holds no sound: there is no data chunk")


def _read_format(chunk: bytes) -> tuple[str, int, int]:
    """Return the type of a sample, the channels, and the rate."""
    if len(chunk) < 16:
        raise SampleError("its format chunk is cut short")
    code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if code == _EXTENSIBLE and len(chunk) >= 26:
        (code,) = struct.unpack_from("<H", chunk, 24)
    if (code, bits) not in _TYPES:
        raise SampleError(f"format {code} with {bits} bits; PCM of 8 to 32 bits and floats of 32 and 64 are read")
    if not channels or not 0 < rate <= _MOST_RATE:
        raise SampleError(f"{channels} channels at {rate} samples per second")
    return _TYPES[code, bits], channels, rate


def _read_samples(data: bytes, place: int, size: int, kind: str, channels: int) -> np.ndarray:
    width = int(kind[-1])
    count = size // (width * channels) * channels
    refuse_larger(count * 4, MAX_BYTES, f"bytes for {count:,} samples of sound")
    if not count:
        raise SampleError("it holds no sound: there are no samples")
    if kind == "i3":  # three bytes, to which a lowest one is added
        wide = np.zeros((count, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8, 3 * count, place).reshape(-1, 3)
        sound = wide.view("<i4")[:, 0] / 2.0**31
    else:
        sound = np.frombuffer(data, kind, count, place)
        if "f" not in kind:
            sound = (sound - 128.0) / 128 if kind == "u1" else sound / 2.0 ** (8 * width - 1)
    return np.ascontiguousarray(sound.reshape(-1, channels).T, np.float32)


def resample(sound: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Return [c, t] at another rate, by a polyphase filter without aliasing. Raise `SampleError` beyond MAX_BYTES."""
    if rate == wanted:
        return sound
    count, common = sound.size * wanted // rate, gcd(rate, wanted)
    refuse_larger(count * 4, MAX_BYTES, f"bytes for {count:,} samples at {wanted:,} a second")
    if max(rate, wanted) // common > _LONGEST_FILTER:
        raise SampleError(
            f"{rate:,} samples a second cannot be resampled to {wanted:,}; give it that rate before packing"
        )
    from scipy.signal import resample_poly  # takes most of a second to import

    return resample_poly(sound, wanted // common, rate // common, axis=1).astype(np.float32)
