"""Devices: transfers without waiting, memory formats, arithmetic of float32, and errors for a lack of memory.

in   small CPU tensors, such as a mask of present rows (bool [n]); the recipe's name of a precision; a model
out  the tensors on the device; the memory format of a model's images; torch's settings of float32 on CUDA;
     a `StorageError` that says what to lower when memory runs out

The host waits until the device is idle for two operations: a copy from memory that is not pinned, and a mask as an
index on the device. The functions here avoid both.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mvssl.errors import StorageError

NARROW = 16  # input channels of a group; the AVX-512 kernels of oneDNN work on blocks of 16


def send(x: Tensor, device: torch.device) -> Tensor:
    """Return a small CPU tensor on `device` without waiting for the device."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


@functools.lru_cache(maxsize=1024)
def send_constant(x: Tensor, device: torch.device) -> Tensor:
    """Return a CPU tensor that never changes, such as a matrix of colours, on `device`. It is sent only once."""
    with torch.inference_mode(False):
        return x.to(device)


def true_indices(present: Tensor, device: torch.device) -> Tensor:
    """Return the indices of the true rows of `present` (bool [n], on the CPU), int64 [k] on `device`."""
    return send(present.nonzero()[:, 0], device)


def scattered(part: Tensor, rows: Tensor, n: int) -> Tensor:
    """Return a tensor [n, ...] with `part` [k, ...] at `rows`, and zeros elsewhere."""
    return part.new_zeros(n, *part.shape[1:]).index_copy(0, rows, part)


def seed_generator(seed: int, device: torch.device) -> None:
    """Seed torch's generators of the CPU and of `device`. `torch.manual_seed` asks every kind of device instead."""
    if device.type not in ("cpu", "cuda"):
        torch.manual_seed(seed)
        return
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def memory_format_for(model: nn.Module, device: torch.device) -> torch.memory_format:
    """Return the memory format for images and weights of `model` on `device`: channels-last if that is safe.

    Channels-last is faster on tensor cores and on CPUs with wide vectors. But torch 2.14.1 (oneDNN 3.12) has a bug on
    CPUs with AVX-512: the backward pass of some channels-last convolutions writes outside its memory and crashes.
    It was observed for 2 to 15 input channels and 1x1 kernels with a stride above 1, and in bfloat16 for grouped
    kernels with dilation. It was not observed for 1 channel, for 16 and more, or in contiguous memory. A model with
    such a layer stays contiguous on any CPU, so that its numbers do not depend on the processor.
    """
    unsafe = device.type == "cpu" and any(map(_crashes_channels_last, model.modules()))
    return torch.contiguous_format if unsafe else torch.channels_last


def join_rows(parts: Sequence[Tensor], layout: torch.memory_format) -> Tensor:
    """Return the rows of all parts as one batch; images [n, c, h, w] are copied once, into the memory format."""
    if parts[0].ndim != 4:
        return torch.cat(list(parts)) if len(parts) > 1 else parts[0]
    if len(parts) == 1:
        return parts[0].contiguous(memory_format=layout)
    rows, first = sum(map(len, parts)), parts[0]
    joined = torch.empty((rows, *first.shape[1:]), dtype=first.dtype, device=first.device, memory_format=layout)
    begin = 0
    for part in parts:
        joined[begin : begin + len(part)] = part
        begin += len(part)
    return joined


def laid_out(x: Tensor, model: nn.Module) -> Tensor:
    """Return images [n, c, h, w] in the memory format of a model; other tensors stay as they are."""
    return x.contiguous(memory_format=memory_format_for(model, x.device)) if x.ndim == 4 else x


def _crashes_channels_last(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d) or not 1 < module.in_channels // module.groups < NARROW:
        return False
    strided = set(module.kernel_size) == {1} and max(module.stride) > 1
    return strided or (module.groups > 1 and max(module.dilation) > 1)


@contextlib.contextmanager
def enough_memory(hint: str) -> Iterator[None]:
    """Raise a `StorageError` with `hint` if the host or the device runs out of memory inside the block."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        asked = next((line for line in str(error).splitlines() if "allocate" in line), "")
        raise StorageError(f"out of memory{f' ({asked.strip()[:160]})' * bool(asked)}; {hint}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means a lack of memory. For memory of the host, torch has no own class of errors."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


@contextlib.contextmanager
def arithmetic(precision: str, *, tune: bool = False) -> Iterator[None]:
    """Set the arithmetic of float32 on CUDA inside the block: IEEE for fp32, TF32 for tf32 and bf16.

    TF32 applies to convolutions and matrix products; by default, torch uses it for convolutions only. A device without
    TF32, such as a CPU, computes in IEEE. The caller sets autocast to bfloat16. With `tune`, cuDNN tries its algorithms
    for each new shape and keeps the fastest. The earlier settings are restored at the end.
    """
    # torch's older switches (allow_tf32, set_float32_matmul_precision) contradict these and raise when read: see
    # https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    cudnn: Any = torch.backends.cudnn  # pyright does not know its parts
    parts: tuple[Any, ...] = torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn
    before, tuned = [part.fp32_precision for part in parts], torch.backends.cudnn.benchmark
    try:
        for part in parts:
            part.fp32_precision = "ieee" if precision == "fp32" else "tf32"
        torch.backends.cudnn.benchmark = tune
        yield
    finally:
        for part, value in zip(parts, before, strict=True):
            part.fp32_precision = value
        torch.backends.cudnn.benchmark = tuned
