"""Communication between the processes of a run, with gradient. On one process every function is the identity.

N processes give the result of one by this rule: **every process computes the same global loss**, and DDP averages the
gradients over processes. The loss uses `mean`, `logsumexp` and `gather`, whose backward passes are exact adjoints.
The average is then exactly the gradient that one process would get from the global batch.

Derivation: with V = f(sum_p s_p) on each of W processes, the adjoint of the sum gives every process
sum over W of dV/ds = W dV/ds, and DDP's average divides by W.
"""

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal, TypeVar, overload

import torch
import torch.distributed as dist
from torch import Tensor

from mvssl.distributed.local_exchange import LIMIT, LocalExchange, connect
from mvssl.errors import MvsslError, OtherProcessError

Made = TypeVar("Made")

# How long processes wait for the main one, which may take hours to index or pack shards or to hash a cache.
# The limit is for a process that hangs. If a process ends, its connections close, and the others notice it at once.
PATIENCE = timedelta(hours=12)
_waiting: tuple[Any, Any] | None = None  # the default group, and the CPU group that belongs to it
_local: tuple[Any, LocalExchange | None] | None = None  # the default group, and its connections on one machine


def world_size() -> int:
    """Return the number of processes in this run."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        return _gather_parts(x).flatten(0, 1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        rows = grad.contiguous().view(world_size(), ctx.rows, *grad.shape[1:])
        if (exchange := _exchange_for(rows[0])) is not None:
            return exchange(list(rows)).sum(0, dtype=grad.dtype)
        total = rows.clone()
        dist.all_reduce(total)
        return total[rank()]


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return _add_up(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return _add_up(grad)


def _gather_parts(x: Tensor) -> Tensor:
    """Return the tensors of all processes, [world, ...]."""
    x = x.contiguous()
    if (exchange := _exchange_for(x)) is not None:
        return exchange([x] * world_size())
    parts = x.new_empty(world_size(), *x.shape)
    dist.all_gather(list(parts.unbind()), x)
    return parts


def _add_up(x: Tensor) -> Tensor:
    """Return the sum over processes, the same bits on every process."""
    if _exchange_for(x) is not None:
        return _gather_parts(x).sum(0, dtype=x.dtype)
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def _exchange_for(x: Tensor) -> LocalExchange | None:
    """Return the quick way for small CPU tensors, if all processes are on one machine. All must ask together."""
    global _local
    if x.device.type != "cpu" or x.nbytes > LIMIT:
        return None
    if _local is None or _local[0] is not dist.group.WORLD:
        _local = dist.group.WORLD, connect(PATIENCE.total_seconds())
    return _local[1]


def _close_local() -> None:
    """Close the local connections of this process."""
    if _local is not None and _local[1] is not None:
        _local[1].close()


os.register_at_fork(after_in_child=_close_local)  # so that others notice at once if the parent of the fork ends


def gather(x: Tensor) -> Tensor:
    """Return the rows of every process in rank order, [n, ...] -> [world * n, ...], with gradient.

    n must be equal on every process.
    """
    return x if world_size() == 1 else _Gather.apply(x)  # pyright: ignore[reportReturnType]


def own_rows(n: int) -> slice:
    """Return the slice of this process's n rows in the result of `gather`."""
    return slice(rank() * n, (rank() + 1) * n)


def sum_over_processes(x: Tensor) -> Tensor:
    """Return the sum over processes, element by element, with gradient."""
    return x if world_size() == 1 else _Sum.apply(x)  # pyright: ignore[reportReturnType]


def is_any(value: bool, device: torch.device) -> bool:
    """Return whether the value is true on any process. Every process must call it, and the host waits."""
    return sum_over_processes(torch.tensor(float(value), device=device)).item() > 0


def mean(sum: Tensor, count: Tensor) -> Tensor:
    """Return the mean over the terms of all processes, or 0 without any term. `sum` and `count` are scalars.

    This process has `count` terms with that `sum`. The counts may differ between processes.
    """
    both = sum_over_processes(torch.stack([sum, count.to(sum)]))
    return both[0] / both[1].detach().clamp(min=1)


def safe_logsumexp(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """Return torch.logsumexp, with gradient 0 instead of NaN if every term is -inf."""
    top = x.detach().amax(dim, keepdim=True).clamp(min=torch.finfo(x.dtype).min)
    sum = (x - top).exp().sum(dim)
    none = sum == 0
    return sum.masked_fill(none, 1).log().masked_fill(none, -torch.inf) + top.view_as(sum)


def logsumexp(x: Tensor) -> Tensor:
    """Return the logsumexp over processes, element by element, with gradient. It is -inf if no process has a term."""
    return x if world_size() == 1 else safe_logsumexp(gather(x[None]), 0)


def cpu_group() -> Any:
    """Return a group for objects and tensors on CPUs with the time limit PATIENCE; None on one process.

    All processes must call it together. The default group cannot wait that long: NCCL ends the run after ten minutes,
    and its waits occupy the device.
    """
    global _waiting
    if world_size() == 1:
        return None
    if _waiting is None or _waiting[0] is not dist.group.WORLD:
        _waiting = dist.group.WORLD, dist.new_group(backend="gloo", timeout=PATIENCE)
    return _waiting[1]


@overload
def run_on_main(work: Callable[[], Made]) -> Made: ...
@overload
def run_on_main(work: Callable[[], Made], *, share: Literal[False]) -> Made | None: ...
def run_on_main(work: Callable[[], Made], *, share: bool = True) -> Made | None:
    """Run `work` on the main process and return its result on every process. Every process must call it.

    A shared result must be picklable. Without `share` the other processes get None. If `work` raises an `MvsslError`,
    the other processes raise `OtherProcessError` with the same message and exit code.
    """
    made, failure, group = None, None, cpu_group()
    if rank() == 0:
        try:
            made = work()
        except MvsslError as error:
            failure = error
    if world_size() > 1:
        outcome = [(made if share else None, None if failure is None else (str(failure), failure.code))]
        dist.broadcast_object_list(outcome, group=group)
        shared, elsewhere = outcome[0]
        if rank():
            made = shared
        if elsewhere is not None and failure is None:
            raise OtherProcessError(*elsewhere)
    if failure is not None:
        raise failure
    return made


def run_main_first(work: Callable[[], Made]) -> Made:
    """Run `work` on the main process, then on the others, which reuse the files that it wrote. Return its result."""
    made = run_on_main(work, share=False)
    return work() if rank() else made  # pyright: ignore[reportReturnType]


def gather_objects(value: Made) -> list[Made]:
    """Return the values of all processes, by rank. They must pickle, and every process must call it."""
    everyone: list[Made] = [value] * world_size()
    if world_size() > 1:
        dist.all_gather_object(everyone, value, group=cpu_group())
    return everyone


def gather_on_main(value: Made) -> list[Made]:
    """Return the values of all processes, by rank, on the main process, and [] on the others. They must pickle.

    Every process must call it. Only the main process receives the values, so they may be large.
    """
    if world_size() == 1:
        return [value]
    everyone: list[Any] | None = [None] * world_size() if rank() == 0 else None
    dist.gather_object(value, everyone, dst=0, group=cpu_group())
    return everyone or []


def join_processes() -> torch.device:
    """Join the processes that a launcher started, if any, and return the device of this process."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "MASTER_ADDR" in os.environ and not dist.is_initialized():
        from accelerate import PartialState

        # accelerate's launcher does not pass use_cpu on to its workers
        return PartialState(cpu=not torch.accelerator.is_available()).device or torch.device("cpu")
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def close() -> None:
    """Leave the process group, if there is one."""
    _close_local()
    if dist.is_initialized():
        dist.destroy_process_group()
