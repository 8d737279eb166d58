"""Batch norm with the statistics of the global batch, for any number of processes.

in   [n, c, ...] on each process; n may differ and may be 0
out  value, gradient and running statistics as on one process with all rows

torch.nn.SyncBatchNorm does this on CUDA only, so the class below replaces it on CPUs. It also replaces it if rows can
be absent. A batch may then hold one value per channel or none: torch raises on one process, and its running variances
become NaN on several. Here the output for a single value is the bias; it updates the running mean, but not the running
variance.
Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167
"""

from typing import NamedTuple, TypeVar

import torch
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from mvssl.distributed.collectives import gather, sum_over_processes, world_size

Converted = TypeVar("Converted", bound=nn.Module)


class Statistics(NamedTuple):
    """Mean and biased variance of each channel over all processes, each [c], and the number of values, 0-d."""

    mean: Tensor
    var: Tensor
    count: Tensor


class SyncBatchNorm(_BatchNorm):
    """Batch norm over processes, on any device. It is no subclass of torch's class, which DDP refuses on CPUs."""

    def forward(self, input: Tensor) -> Tensor:
        alone = world_size() == 1 and input.numel() > input.shape[1]
        if alone or not (self.training or self.running_mean is None):
            return super().forward(input)
        dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
        total = measure_channels(input, dtype)
        if self.training and self.track_running_stats:
            self._track(total)
        weight, bias = (None, None) if not self.affine else (self.weight.to(dtype), self.bias.to(dtype))
        return _Normalise.apply(input, weight, bias, total, self.eps)  # pyright: ignore[reportReturnType]

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions."""

    @torch.no_grad()
    def _track(self, total: Statistics) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        mean, var, count = total
        self.num_batches_tracked += count > 0
        share = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.clamp(min=1)
        unbiased = var * (count / (count - 1).clamp(min=1))
        # without rows on any process the mean stays, and the variance also with a single one
        self.running_mean += (count > 0).to(mean) * share * (mean - self.running_mean)
        self.running_var += (count > 1).to(var) * share * (unbiased - self.running_var)


@torch.no_grad()
def measure_channels(x: Tensor, dtype: torch.dtype) -> Statistics:
    """Return the statistics of [n, c, ...] over all processes in `dtype`. A process may have no rows.

    Each process sends mean, squares around its own mean, and count; Chan, Golub and LeVeque, 1983, add them up. The
    difference E[x^2] - E[x]^2 would lose digits if the mean is large.
    """
    c = x.shape[1]
    own = torch.zeros(2 * c + 1, dtype=dtype, device=x.device)
    if x.numel():
        mean, var = _update_stats(x, own[:c], own[:c], 0.0)  # the zeros only tell the kernel its dtype
        own = torch.cat([mean, var * (x.numel() // c), own.new_full((1,), x.numel() // c)])
    means, squares, counts = gather(own[None]).split([c, c, 1], dim=1)
    count = counts.sum()
    mean = (means * counts).sum(0) / count.clamp(min=1)
    squares = squares + counts * (means - mean).square()
    return Statistics(mean, squares.sum(0) / count.clamp(min=1), count)


_update_stats = torch.ops.aten.batch_norm_update_stats


class _Normalise(torch.autograd.Function):
    """weight (x - mean) / sqrt(var + eps) + bias, by torch's own kernels.

    Backward, with h the normalised x, and means over all processes:
    dx = weight / sqrt(var + eps) * (dy - mean(dy) - h mean(dy h)).
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor | None, bias: Tensor | None, total: Statistics, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight, *total)
        ctx.eps = eps
        return _scale_and_shift(x, weight, bias, total, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, *statistics = ctx.saved_tensors
        total, c = Statistics(*statistics), x.shape[1]
        own = total.mean.new_zeros(2 * c)
        if x.numel():
            own = torch.cat(_channel_sums(dy, x, None, total.mean, total.var, None, None, False, ctx.eps, _SUMS)[1:])
        dweight, dbias = own.split(c)
        means = sum_over_processes(own) / total.count.clamp(min=1)
        scale = torch.rsqrt(total.var + ctx.eps)
        scale = scale if weight is None else weight * scale
        dx = None
        if ctx.needs_input_grad[0]:
            inner = total.mean.dtype
            dx = _scale_and_shift(x.to(inner), *(-scale * half for half in means.split(c)), total, ctx.eps)
            dx = dx.addcmul_(dy.to(inner), scale.view(1, -1, *[1] * (x.ndim - 2))).to(x.dtype)
        return dx, dweight if weight is not None else None, dbias if weight is not None else None, None, None


_channel_sums = torch.ops.aten.native_batch_norm_backward
_SUMS = [False, True, True]  # of the kernel's three results: the sums of dy h and of dy over rows, but not dx


def _scale_and_shift(x: Tensor, weight: Tensor | None, bias: Tensor | None, total: Statistics, eps: float) -> Tensor:
    """Return weight (x - mean) / sqrt(var + eps) + bias."""
    if not x.numel():
        return x.clone()
    return torch.native_batch_norm(x, weight, bias, total.mean, total.var, False, 0.0, eps)[0]


class SyncBatchNormAct(SyncBatchNorm):
    """The same for timm's BatchNormAct2d: dropout and activation follow the norm."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


def convert_batchnorm(
    module: Converted, device: torch.device | str | None = None, *, rows_absent: bool = False
) -> Converted:
    """Return `module` with every batch norm replaced by one over processes; keys of the state dict stay.

    `device` is where the module will run; default: the device of its parameters. Several CUDA processes get torch's
    SyncBatchNorm, unless a batch may hold fewer than two rows (`rows_absent`). All others get the class above. On one
    process it equals torch's BatchNorm if that accepts the batch. Parameters and buffers are shared with the old norms.
    """
    if device is None:
        device = next((p.device for p in module.parameters()), torch.device("cpu"))
    fused = torch.device(device).type == "cuda" and world_size() > 1 and not rows_absent
    return (convert_sync_batchnorm if fused else _convert)(module)  # pyright: ignore[reportReturnType]


def _convert(module: nn.Module) -> nn.Module:
    if isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm):
        return _replacement(module)
    for name, child in module.named_children():
        setattr(module, name, _convert(child))
    return module


def _replacement(norm: _BatchNorm) -> SyncBatchNorm:
    acts = isinstance(norm, BatchNormAct2d)
    made = (SyncBatchNormAct if acts else SyncBatchNorm)(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    made._parameters, made._buffers = norm._parameters, norm._buffers
    if acts:
        made.drop, made.act = norm.get_submodule("drop"), norm.get_submodule("act")
    return made.train(norm.training)
