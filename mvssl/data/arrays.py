"""numpy's npy and npz, read without pickle and without believing a header that asks for more than there is.

Format: numpy.lib.format, https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

import io
import math
import zipfile

import numpy as np

from mvssl.data.faults import Undecodable

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npy(data: bytes) -> np.ndarray:
    """The array in the bytes of an npy file. Raises `Undecodable`, or numpy's ValueError on a garbled header."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise Undecodable(f"npy version {version}; 1.0 and 2.0 are read")
    shape, columns_first, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise Undecodable("an array of Python objects, which only pickle could read; save plain numbers")
    count, begin = math.prod(shape), file.tell()
    if len(data) - begin != count * dtype.itemsize:
        raise Undecodable(
            f"{len(data) - begin:,} bytes where {list(shape)} of {dtype} takes {count * dtype.itemsize:,}"
        )
    array = np.frombuffer(data, dtype, count, begin)
    return array.reshape(shape, order="F" if columns_first else "C")


def read_npz(archive: zipfile.ZipFile, name: str | None, most: int) -> np.ndarray:
    """One array of an npz: the only one, or `name`, of at most `most` bytes unpacked. Raises `Undecodable`."""
    names = [entry.removesuffix(".npy") for entry in archive.namelist()]
    if name is None and len(names) != 1:
        raise Undecodable(f"it holds {len(names)} arrays; say which with path: ({', '.join(names[:8])})")
    wanted = names[0] if name is None else name
    if wanted not in names:
        raise Undecodable(f"no array {wanted!r}; it holds {', '.join(names[:8])}")
    entry = archive.infolist()[names.index(wanted)]
    if entry.file_size > most:
        raise Undecodable(f"{entry.file_size:,} bytes unpacked; the limit is {most:,}")
    with archive.open(entry) as file:
        return read_npy(file.read(most + 1))
