"""numpy's npy and npz, read without pickle and without believing a header that asks for more than there is.

in   the bytes of a field
out  its array, of at most MAX_BYTES before and after it becomes uint8 or float32; or an `SampleError`

Format: numpy.lib.format, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import io
import math
import zipfile

import numpy as np

from mvssl.data.sample_errors import SampleError

MAX_BYTES = 1 << 28  # of one field, packed and unpacked
_MOST_ENTRIES = 1 << 20  # bytes of an npz's table of contents
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npy(data: bytes) -> np.ndarray:
    """The array in the bytes of an npy file. Raises `SampleError`, or numpy's ValueError on a garbled header."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise SampleError(f"npy version {version}; 1.0 and 2.0 are read")
    shape, columns_first, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise SampleError("an array of Python objects, which only pickle could read; save plain numbers")
    if any(length < 0 for length in shape):
        raise SampleError(f"an array of {list(shape)}")
    count, begin = math.prod(shape), file.tell()
    if len(data) - begin != count * dtype.itemsize:
        raise SampleError(
            f"{len(data) - begin:,} bytes where {list(shape)} of {dtype} takes {count * dtype.itemsize:,}"
        )
    if dtype.kind in "bif" and count * 4 > MAX_BYTES:
        raise SampleError(f"{count:,} numbers take {count * 4:,} bytes; the limit is {MAX_BYTES:,}")
    array = np.frombuffer(data, dtype, count, begin)
    return array.reshape(shape, order="F" if columns_first else "C")


def open_npz(data: bytes) -> zipfile.ZipFile:
    """The archive, once its table of contents is known to be small. Raises `SampleError`, zipfile's errors."""
    end = data.rfind(b"PK\5\6")
    size = int.from_bytes(data[end + 12 : end + 16], "little")  # 2^32 - 1 where a larger header takes its place
    if end >= 0 and (size > _MOST_ENTRIES or data[end - 20 : end - 16] == b"PK\6\7"):
        raise SampleError(f"an npz whose table of contents is larger than {_MOST_ENTRIES:,} bytes")
    return zipfile.ZipFile(io.BytesIO(data))


def read_npz(archive: zipfile.ZipFile, name: str | None) -> np.ndarray:
    """One array of an npz: the only one, or `name`, of at most MAX_BYTES unpacked. Raises `SampleError`."""
    names = [entry.removesuffix(".npy") for entry in archive.namelist()]
    if name is None and len(names) != 1:
        raise SampleError(f"it holds {len(names)} arrays; say which with path: ({', '.join(names[:8])})")
    wanted = names[0] if name is None else name
    if wanted not in names:
        raise SampleError(f"no array {wanted!r}; it holds {', '.join(names[:8])}")
    entry = archive.infolist()[names.index(wanted)]
    if entry.file_size > MAX_BYTES:
        raise SampleError(f"{entry.file_size:,} bytes unpacked; the limit is {MAX_BYTES:,}")
    with archive.open(entry) as file:
        return read_npy(file.read(MAX_BYTES + 1))


def as_numbers(array: np.ndarray) -> np.ndarray:
    """uint8 as it is, else float32. True is 1.0 and no uint8: as a picture, 1 of 255 would be black."""
    return np.ascontiguousarray(array, np.uint8 if array.dtype == np.uint8 else np.float32)


def channels_unclear(shape: tuple[int, ...]) -> str | None:
    """What to say of an array whose last dimension looks like its channels; None where it does not."""
    if len(shape) == 3 and shape[2] <= 4 < min(shape[:2]):
        return f"an array of {list(shape)} looks like [h, w, c], and [c, h, w] is expected"
    if len(shape) == 2 and 2 <= shape[1] <= 4 and shape[0] >= 32:
        return f"an array of {list(shape)} looks like [t, c], and [c, t] is expected"
    return None
