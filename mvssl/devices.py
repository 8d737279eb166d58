"""From the CPU to the device without waiting for it, and rows picked there without asking it.

in   small CPU tensors: parameters, constants, which rows are present (bool [n])
out  the same on the device; rows taken out and put back
A copy from ordinary memory, or a mask as an index on the device, makes the host wait until the device is idle.
"""

import torch
from torch import Tensor


def send(x: Tensor, device: torch.device) -> Tensor:
    """A small CPU tensor on `device` without waiting for it."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def rows_of(present: Tensor, device: torch.device) -> Tensor:
    """Numbers of the rows that `present` (bool [n], on the CPU) names, int64 [k] on `device`."""
    return send(present.nonzero()[:, 0], device)


def scattered(part: Tensor, rows: Tensor, n: int) -> Tensor:
    """[n, ...] with `part` [k, ...] at `rows`, zeros elsewhere."""
    return part.new_zeros(n, *part.shape[1:]).index_copy(0, rows, part)
