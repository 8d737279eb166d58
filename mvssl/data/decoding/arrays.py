"""numpy's npy and npz, read without pickle. A header that asks for more bytes than there are is refused.

in   the bytes of a field
out  its array, of at most MAX_BYTES before and after it becomes uint8 or float32; or a `SampleError`

Format: numpy.lib.format, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import io
import math
import re
import zipfile

import numpy as np

from mvssl.data.sample_errors import SampleError, refuse_larger

MAX_BYTES = 1 << 28  # of one field, packed and unpacked
_MOST_ENTRIES = 1 << 20  # bytes of an npz's table of contents
_PLAIN_HEADER = re.compile(  # what numpy writes for an array of numbers or bytes; numpy itself compiles it as Python
    rb"\x93NUMPY\x01\x00(..)\{'descr': '([<|][biufS]\d{1,9})', 'fortran_order': False, "
    rb"'shape': \(((?:\d{1,15}, )*\d{1,15},?|)\), \} *\n",
    re.DOTALL,
)
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npy(data: bytes | memoryview) -> np.ndarray:
    """Return the array in the bytes of an npy file. Raise `SampleError`, or numpy's ValueError on a damaged header."""
    shape, columns_first, dtype, begin = _read_plain_header(data) or _read_header(data)
    if dtype.hasobject:
        raise SampleError("an array of Python objects, which only pickle could read; save plain numbers")
    if any(length < 0 for length in shape):
        raise SampleError(f"an array of {list(shape)}")
    count = math.prod(shape)
    if len(data) - begin != count * dtype.itemsize:
        raise SampleError(
            f"{len(data) - begin:,} bytes where {list(shape)} of {dtype} takes {count * dtype.itemsize:,}"
        )
    if dtype.kind in "bif":
        refuse_larger(count * 4, MAX_BYTES, f"bytes for {count:,} numbers")
    array = np.frombuffer(data, dtype, count, begin)
    return array.reshape(shape, order="F" if columns_first else "C")


def _read_plain_header(data: bytes | memoryview) -> tuple[tuple[int, ...], bool, np.dtype, int] | None:
    """Return shape, order, type and length of a header in its usual form; None for another form."""
    found = _PLAIN_HEADER.match(data)
    if found is None or found.end() != 10 + int.from_bytes(found[1], "little"):
        return None
    shape = tuple(int(length) for length in found[3].split(b",") if length.strip())
    return shape, False, np.dtype(found[2].decode()), found.end()


def _read_header(data: bytes | memoryview) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Return shape, order, type and length of any header. Raise `SampleError`, numpy's ValueError."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise SampleError(f"npy version {version}; 1.0 and 2.0 are read")
    return *_HEADERS[version](file), file.tell()


def npy_bytes(array: np.ndarray) -> bytes:
    """Return the array as an npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def open_npz(data: bytes) -> zipfile.ZipFile:
    """Return the archive, whose table of contents is known to be small. Raise `SampleError`, zipfile's errors."""
    end = data.rfind(b"PK\5\6")
    size = int.from_bytes(data[end + 12 : end + 16], "little")  # 2^32 - 1 if a larger header replaces it
    if end >= 0 and (size > _MOST_ENTRIES or data[end - 20 : end - 16] == b"PK\6\7"):
        raise SampleError(f"an npz whose table of contents is larger than {_MOST_ENTRIES:,} bytes")
    return zipfile.ZipFile(io.BytesIO(data))


def read_npz(archive: zipfile.ZipFile, name: str | None) -> np.ndarray:
    """Return the array `name` of an npz, or its only one, of at most MAX_BYTES unpacked. Raise `SampleError`."""
    names = [entry.removesuffix(".npy") for entry in archive.namelist()]
    if name is None and len(names) != 1:
        raise SampleError(f"it holds {len(names)} arrays; say which with path: ({', '.join(names[:8])})")
    wanted = names[0] if name is None else name
    if wanted not in names:
        raise SampleError(f"no array {wanted!r}; it holds {', '.join(names[:8])}")
    entry = archive.infolist()[names.index(wanted)]
    refuse_larger(entry.file_size, MAX_BYTES, "bytes unpacked")
    with archive.open(entry) as file:
        return read_npy(file.read(MAX_BYTES + 1))


def as_numbers(array: np.ndarray) -> np.ndarray:
    """Return uint8 unchanged, other types as float32. True becomes 1.0: as uint8 of a picture, 1 would be black."""
    return np.ascontiguousarray(array, np.uint8 if array.dtype == np.uint8 else np.float32)


def channels_unclear(shape: tuple[int, ...]) -> str | None:
    """Return a message if the last dimension of an array looks like its channels; None if it does not."""
    if len(shape) == 3 and shape[2] <= 4 < min(shape[:2]):
        return f"an array of {list(shape)} looks like [h, w, c], and [c, h, w] is expected"
    if len(shape) == 2 and 2 <= shape[1] <= 4 and shape[0] >= 32:
        return f"an array of {list(shape)} looks like [t, c], and [c, t] is expected"
    return None


def fit_length(array: np.ndarray, length: int) -> np.ndarray:
    """Return the first `length` samples of [..., t], with zeros after a shorter recording."""
    t = array.shape[-1]
    return array[..., :length] if t >= length else np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, length - t)])
