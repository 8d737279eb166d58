"""Files of tensors in the safetensors format, from the tensors themselves or from copies in a kept buffer.

in   tensors by name, on any device
out  the bytes of a file in order, as parts that are hashed and written without a further copy

A save beside the loop needs copies, because the next step changes the tensors. They go to one buffer of the host that
is kept from save to save: to claim the pages of new memory takes longer than the copies.
Format: https://huggingface.co/docs/safetensors/index#format.
"""

import json
import mmap
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import psutil
import torch
from torch import Tensor

from mvssl.errors import StorageError

_ALIGNED = 64  # bytes to which the part of each file in a buffer is aligned
_PAGE = mmap.PAGESIZE
_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8",
    torch.bool: "BOOL", torch.complex64: "C64", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2",
}  # fmt: skip


class TensorFile:
    """The content of a file: `header`, then the values of `tensors` in order, `size` bytes.

    Raise `StorageError` if the format has no name for the type of a tensor.
    """

    def __init__(self, tensors: Mapping[str, Tensor]):
        # wide types first, so that every value is aligned to its type
        self.tensors = dict(sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0])))
        entries, self.size = {}, 0
        for name, tensor in self.tensors.items():
            if tensor.dtype not in _NAMES:
                raise StorageError(f"a checkpoint cannot hold {name}: the file format has no type {tensor.dtype}")
            begin, self.size = self.size, self.size + tensor.nbytes
            entries[name] = {
                "dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, self.size]
            }  # fmt: skip
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        self.header = struct.pack("<Q", len(text)) + text

    def parts(self) -> Iterator[memoryview]:
        """Yield the bytes. Each tensor is copied to the CPU when its turn comes."""
        yield memoryview(self.header)
        for tensor in self.tensors.values():
            yield _bytes_of(tensor.detach().cpu().contiguous())

    def copy_to(self, space: Tensor) -> None:
        """Copy the values to `space`, uint8 [size] on the CPU. The host does not wait for copies to pinned memory."""
        begin = 0
        for tensor in self.tensors.values():
            part, begin = space[begin : begin + tensor.nbytes], begin + tensor.nbytes
            part.view(tensor.dtype).view(tensor.shape).copy_(tensor.detach(), non_blocking=True)


class HostBuffer:
    """Kept memory of the host for the copies of one save: `bytes`, uint8 [size], which is pinned if `device` is CUDA.

    Forked processes do not get it: a loader process would double the memory as soon as the next save writes to it.
    `claim_buffer` makes one.
    """

    def __init__(self, size: int, device: torch.device):
        linux = sys.platform == "linux"
        pages = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) if linux else bytearray(size)
        if isinstance(pages, mmap.mmap):
            pages.madvise(mmap.MADV_DONTFORK)
        self.bytes, self._device, self._pinned = torch.frombuffer(pages, dtype=torch.uint8)[:size], device, False
        self.bytes.numpy()[::_PAGE] = 0  # claims the pages now, not during the first save
        if device.type == "cuda" and size:
            # torch's pin_memory would round up to the next power of two
            cudart: Any = torch.cuda.cudart()
            self._pinned = int(cudart.cudaHostRegister(self.bytes.data_ptr(), size, 0)) == 0

    def copy(self, files: Mapping[str, TensorFile]) -> dict[str, Iterable[memoryview]]:
        """Copy the tensors of all files and return the parts of each file, which wait for the copies to arrive.

        They are valid until the next call.
        """
        parts, begin, copied = {}, 0, torch.cuda.Event() if self._device.type == "cuda" else None
        for name, file in files.items():
            space = self.bytes[begin : begin + file.size]
            file.copy_to(space)
            parts[name] = _arrived_parts(file.header, space, copied)
            begin += _aligned(file.size)
        if copied is not None:
            copied.record()
        return parts

    def close(self) -> None:
        """Give the memory back; parts that `copy` returned are not valid any more."""
        if self._pinned:
            cudart: Any = torch.cuda.cudart()
            cudart.cudaHostUnregister(self.bytes.data_ptr())
            self._pinned = False
        self.bytes = torch.empty(0, dtype=torch.uint8)


def claim_buffer(size: int, device: torch.device) -> HostBuffer | None:
    """Return a buffer, or None if it would take more than half of the memory that is free."""
    if size > psutil.virtual_memory().available // 2:
        return None
    try:
        return HostBuffer(size, device)
    except (OSError, MemoryError):
        return None


def buffer_size(files: Iterable[TensorFile]) -> int:
    """Return the bytes of a buffer for the copies of these files."""
    return sum(_aligned(file.size) for file in files)


def _arrived_parts(header: bytes, space: Tensor, copied: torch.cuda.Event | None) -> Iterator[memoryview]:
    if copied is not None:
        copied.synchronize()
    yield memoryview(header)
    yield _bytes_of(space)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data
