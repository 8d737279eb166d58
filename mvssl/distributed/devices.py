"""From the CPU to the device without waiting for it, rows picked there without asking it, and how exactly it computes.

in   small CPU tensors: parameters, constants, which rows are present (bool [n]); a precision by its name in a recipe;
     a model
out  the same on the device; rows taken out and put back; torch's settings of float32 on CUDA; how a model's images
     should lie in memory; memory that runs out as an error that says what to lower
A copy from ordinary memory, or a mask as an index on the device, makes the host wait until the device is idle.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mvssl.errors import StorageError

NARROW = 16  # input channels of a group; oneDNN's kernels for AVX-512 work on so many at once


def send(x: Tensor, device: torch.device) -> Tensor:
    """A small CPU tensor on `device` without waiting for it."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def rows_of(present: Tensor, device: torch.device) -> Tensor:
    """Numbers of the rows that `present` (bool [n], on the CPU) names, int64 [k] on `device`."""
    return send(present.nonzero()[:, 0], device)


def scattered(part: Tensor, rows: Tensor, n: int) -> Tensor:
    """[n, ...] with `part` [k, ...] at `rows`, zeros elsewhere."""
    return part.new_zeros(n, *part.shape[1:]).index_copy(0, rows, part)


def memory_format_for(model: nn.Module, device: torch.device) -> torch.memory_format:
    """How images and the weights of `model` should lie in memory on `device`: channels-last wherever that is safe.

    Channels-last is faster on tensor cores, and on CPUs with wide vectors too. But in torch 2.14.1 (oneDNN 3.12) on
    CPUs with AVX-512 the backward pass of some channels-last convolutions writes outside its memory: a segmentation
    fault, or a damaged heap. Seen for 2 to 15 input channels and 1x1 kernels with a stride above 1, and in bfloat16
    for grouped kernels with dilation; not for 1 or 16 and more channels, nor in contiguous memory. A model with such a
    layer stays contiguous on any CPU, so that its numbers do not depend on the processor.
    """
    unsafe = device.type == "cpu" and any(map(_crashes_channels_last, model.modules()))
    return torch.contiguous_format if unsafe else torch.channels_last


def laid_out(x: Tensor, model: nn.Module) -> Tensor:
    """Images [n, c, h, w] in the memory format of a model; anything else as it is."""
    return x.contiguous(memory_format=memory_format_for(model, x.device)) if x.ndim == 4 else x


def _crashes_channels_last(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv2d) or not 1 < module.in_channels // module.groups < NARROW:
        return False
    strided = set(module.kernel_size) == {1} and max(module.stride) > 1
    return strided or (module.groups > 1 and max(module.dilation) > 1)


@contextlib.contextmanager
def enough_memory(way_out: str) -> Iterator[None]:
    """Inside, memory that runs out, of the host or the device, is a `StorageError` that says what to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        asked = next((line for line in str(error).splitlines() if "allocate" in line), "")
        raise StorageError(f"out of memory{f' ({asked.strip()[:160]})' * bool(asked)}; {way_out}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch has no class of its own for the host's."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


@contextlib.contextmanager
def arithmetic(precision: str, *, tune: bool = False) -> Iterator[None]:
    """Inside, float32 on CUDA is IEEE everywhere (fp32), or TF32 in convolutions and matrix products (tf32, bf16).

    torch's own default is one of each. Autocast to bfloat16 is the caller's. TF32 is leave to round, not an order: a
    device without it, such as a CPU, computes in IEEE. With `tune` cuDNN tries its algorithms for each new shape and
    keeps the fastest. Afterwards everything is set as it was.
    """
    # torch's older switches (allow_tf32, set_float32_matmul_precision) contradict these and raise when read: see
    # https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    cudnn: Any = torch.backends.cudnn  # whose parts pyright does not see
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
