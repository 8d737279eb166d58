"""What keeps a bad step from doing harm: a vote of all processes, and a memory of what forward writes.

A step is vetoed when the loss or the gradient is not finite on any process. It then changes nothing: the fused
optimizer skips it on the device (`found_inf`), and running statistics go back to what they were. The host never waits
for the verdict of the step in flight; it reads the verdict of the one before.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mvssl.distributed import collectives
from mvssl.distributed.devices import send


class Votes(NamedTuple):
    """The votes of a step, summed over processes."""

    against: float  # the step, as loss or gradient is not finite
    stop: float  # requests to save and stop
    bad: float  # samples that were substituted
    save: float  # requests to save and go on


def vote(loss: Tensor, grad_norm: Tensor, stop: bool, bad: int, save: bool = False) -> Tensor:
    """[4], the fields of `Votes`, still on the device."""
    against = ~(torch.isfinite(loss) & torch.isfinite(grad_norm))
    host = send(torch.tensor([float(stop), float(bad), float(save)]), loss.device)
    return collectives.total(torch.cat([against.float().reshape(1), host]))


def clipped(parameters: Iterable[nn.Parameter], clip: float | None) -> Tensor:
    """The norm of all gradients together, 0-d; with `clip` they are scaled down to it where they are larger.

    Without one nothing passes over them a second time.
    """
    given = [parameter for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in given if parameter.grad is not None])
    if clip is not None:
        nn.utils.clip_grads_with_norm_(given, clip, norm)
    return norm


class Late:
    """A small tensor on its way to the host; `read` waits for its own step alone, not for what was queued since."""

    def __init__(self, tensor: Tensor):
        self.host, self.arrived = tensor, None
        if tensor.is_cuda:
            self.host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self.host.copy_(tensor, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    def read(self) -> list[float]:
        """The numbers."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.host.tolist()


def step_unless(vetoed: Tensor, optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Step a fused optimizer at the given rate, or change nothing, as a 0-d bool on the device says.

    Drops the gradients either way.

    Uses the way in which torch's GradScaler tells fused optimizers of an overflow.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.found_inf, optimizer.grad_scale = vetoed.float(), None  # pyright: ignore[reportAttributeAccessIssue]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


class Buffers:
    """The running statistics of a model before a step, so that a vetoed step can be undone without a sync.

    Those of one dtype are kept as one vector: a few launches for all, where a deep network has hundreds of buffers.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.kept: list[Tensor] = []

    def remember(self) -> None:
        """Copy what stands in the buffers now."""
        self.kept = [_side_by_side(group) for group in self._groups()]

    def restore_where(self, vetoed: Tensor) -> None:
        """Put the remembered values back if `vetoed` (a 0-d bool tensor) is true."""
        if not vetoed.is_cuda and not vetoed:
            return  # on a CPU there is no queue to keep full, and so nothing to do
        for live, kept in zip(self._groups(), self.kept, strict=True):
            parts = torch.where(vetoed, kept, _side_by_side(live)).split([buffer.numel() for buffer in live])
            values = [part.view(buffer.shape) for part, buffer in zip(parts, live, strict=True)]
            torch._foreach_copy_(live, values)  # pyright: ignore[reportPrivateImportUsage]

    def _groups(self) -> list[list[Tensor]]:
        groups = defaultdict(list)
        for buffer in self.model.buffers():
            groups[buffer.device, buffer.dtype].append(buffer)
        return list(groups.values())


def _side_by_side(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors])
