"""What keeps a bad step from doing harm: a vote of all processes, and a memory of what forward writes.

A step is vetoed when the loss or the gradient is not finite on any process. It then changes nothing: the fused
optimizer skips it on the device (`found_inf`), and running statistics go back to what they were. The host never waits
for the verdict of the step in flight; it reads the verdict of the one before.
"""

import torch
from torch import Tensor, nn

from mvssl import distributed
from mvssl.devices import send


def vote(loss: Tensor, grad_norm: Tensor, stop: bool, bad: int) -> Tensor:
    """[3] summed over processes: votes against this step, requests to stop, samples that were substituted."""
    against = ~(torch.isfinite(loss) & torch.isfinite(grad_norm))
    host = send(torch.tensor([float(stop), float(bad)]), loss.device)
    return distributed.total(torch.cat([against.float().reshape(1), host]))


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
    """The running statistics of a model before a step, so that a vetoed step can be undone without a sync."""

    def __init__(self, model: nn.Module):
        self.model = model
        self.kept: dict[str, Tensor] = {}

    def remember(self) -> None:
        """Copy what stands in the buffers now."""
        live = dict(self.model.named_buffers())
        if [(name, b.shape) for name, b in live.items()] != [(name, b.shape) for name, b in self.kept.items()]:
            self.kept = {name: buffer.clone() for name, buffer in live.items()}
        elif live:
            torch._foreach_copy_(list(self.kept.values()), list(live.values()))  # pyright: ignore[reportPrivateImportUsage]

    def restore_where(self, vetoed: Tensor) -> None:
        """Put the remembered values back if `vetoed` (a 0-d bool tensor) is true."""
        if not vetoed.is_cuda and not vetoed:
            return  # on a CPU there is no queue to keep full, and so nothing to do
        for name, live in self.model.named_buffers():
            live.copy_(torch.where(vetoed, self.kept[name], live))
