"""Protection against a bad step: a vote of all processes, and a copy of what the forward pass writes.

A step is vetoed when the loss or the gradient is not finite on any process. It then changes nothing: the fused
optimizer skips it on the device (`found_inf`), and running statistics return to their values from before. The host
never waits for the vote of the step in flight; it reads the vote of the step before.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mvssl.distributed import collectives
from mvssl.distributed.devices import send
from mvssl.optim import set_learning_rate


class Votes(NamedTuple):
    """The votes on one step, summed over processes, on the host."""

    against: int  # processes where the loss or the gradient is not finite
    stop: int  # processes that were asked to save and stop
    bad: int  # samples that were replaced
    save: int  # processes that were asked to save and go on


@dataclass(frozen=True)
class Vote:
    """The votes on one step, summed over processes, still on the device."""

    totals: Tensor  # [4], the fields of `Votes`
    vetoed: Tensor  # 0-d bool: whether the step must change nothing


def collect_vote(loss: Tensor, grad_norm: Tensor, *, stop: bool, bad: int, save: bool = False) -> Vote:
    """Sum the votes of all processes on a step; every process must call it, and none waits for its device."""
    against = ~(torch.isfinite(loss) & torch.isfinite(grad_norm))
    host = send(torch.tensor([float(stop), float(bad), float(save)]), loss.device)
    totals = collectives.sum_over_processes(torch.cat([against.float().reshape(1), host]))
    return Vote(totals, totals[0] > 0)


class AsyncScalars:
    """A small tensor that is being copied to the host; `read` waits for this copy, not for later work."""

    def __init__(self, tensor: Tensor):
        self.host, self.arrived = tensor, None
        if tensor.is_cuda:
            self.host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self.host.copy_(tensor, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def read(self) -> list[float]:
        """Return the numbers."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.host.tolist()


def measure_and_clip(parameters: Iterable[nn.Parameter], clip: float | None) -> Tensor:
    """Return the norm of all gradients together, 0-d; scale them down to `clip` if the norm is larger.

    Without `clip` the gradients are read once and not changed.
    """
    given = [parameter for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in given if parameter.grad is not None])
    if clip is not None:
        nn.utils.clip_grads_with_norm_(given, clip, norm)
    return norm


def update_unless(vetoed: Tensor, optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Step a fused optimizer at learning rate `rate`, or change nothing if `vetoed` (0-d bool) is true.

    The gradients are dropped in both cases. Torch's GradScaler reports an overflow to fused optimizers in this way.
    """
    set_learning_rate(optimizer, rate)
    optimizer.found_inf, optimizer.grad_scale = vetoed.float(), None  # pyright: ignore[reportAttributeAccessIssue]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


class BufferSnapshot:
    """The running statistics of a model from before a step, to undo a vetoed step without waiting for the device.

    Buffers of one dtype are kept as one vector: a deep network has hundreds of buffers, and each copy is a launch.
    Their places in the modules are looked up once, since walking through all modules takes a millisecond.
    """

    def __init__(self, model: nn.Module):
        self.places = [(held, key) for held in (module._buffers for module in model.modules()) for key in held]
        self.kept: list[Tensor] = []

    def take(self) -> None:
        """Copy the present values of the buffers."""
        self.kept = [_concatenate(group) for group in self._groups()]

    def restore_where(self, vetoed: Tensor) -> None:
        """Restore the copied values if `vetoed` (a 0-d bool tensor) is true."""
        if not vetoed.is_cuda and not vetoed:
            return  # a CPU has no queue of work, so reading the flag costs nothing
        for live, kept in zip(self._groups(), self.kept, strict=True):
            parts = torch.where(vetoed, kept, _concatenate(live)).split([buffer.numel() for buffer in live])
            values = [part.view(buffer.shape) for part, buffer in zip(parts, live, strict=True)]
            torch._foreach_copy_(live, values)  # pyright: ignore[reportPrivateImportUsage]

    def _groups(self) -> list[list[Tensor]]:
        groups = defaultdict(list)
        for held, key in self.places:
            if (buffer := held[key]) is not None:
                groups[buffer.device, buffer.dtype].append(buffer)
        return list(groups.values())


def _concatenate(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
