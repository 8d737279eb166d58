"""Batch norm with the statistics of the global batch, for any number of processes.

in   [n, c, ...] on each process; n may differ and may be 0
out  value, gradient and running statistics as on one process with all rows

torch.nn.SyncBatchNorm does this on CUDA only, so the class below replaces it on CPUs. It also replaces it if rows can
be absent. A batch may then hold one value per channel or none: torch raises on one process, and its running variances
become NaN on several. Here the output for a single value is the bias; it updates the running mean, but not the running
variance.
Ioffe and Szegedy, 2015, https://arxiv.org/abs/1502.03167
"""

from typing import TypeVar

import torch
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mvssl.distributed.collectives import sum_over_processes, world_size

Converted = TypeVar("Converted", bound=nn.Module)


class SyncBatchNorm(_BatchNorm):
    """Batch norm over processes, on any device. It is no subclass of torch's class, which DDP refuses on CPUs."""

    def forward(self, input: Tensor) -> Tensor:
        alone = world_size() == 1 and input.numel() > input.shape[1]
        if alone or not (self.training or self.running_mean is None):
            return super().forward(input)
        x = input if input.dtype == torch.float64 else input.float()
        return self._normalise(x).to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions."""

    def _normalise(self, x: Tensor) -> Tensor:
        axes = [axis for axis in range(x.ndim) if axis != 1]
        c = x.shape[1]
        rows = x.new_full((1,), x.numel() // c)
        both = sum_over_processes(torch.cat([x.sum(axes), rows]))
        count = both[-1].detach()
        mean = both[:-1] / count.clamp(min=1)
        centred = x - _on_channels(mean, x)
        # squares of the centred values, because E[x^2] - E[x]^2 loses digits if the mean is large
        var = sum_over_processes(centred.square().sum(axes)) / count.clamp(min=1)
        if self.training and self.track_running_stats:
            self._track(mean.detach(), var.detach(), count)
        y = centred * _on_channels(torch.rsqrt(var + self.eps), x)
        if self.affine:
            y = y * _on_channels(self.weight, x) + _on_channels(self.bias, x)
        return y

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        seen = (count > 0).to(mean)  # without rows on any process the mean stays
        self.num_batches_tracked += (count > 0).long()
        share = self.momentum if self.momentum is not None else 1 / self.num_batches_tracked.clamp(min=1)
        unbiased = var * count / (count - 1).clamp(min=1)
        self.running_mean += seen * share * (mean - self.running_mean)
        self.running_var += (count > 1).to(var) * share * (unbiased - self.running_var)


class SyncBatchNormAct(SyncBatchNorm):
    """The same for timm's BatchNormAct2d: dropout and activation follow the norm."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(input)))


def _on_channels(statistic: Tensor, x: Tensor) -> Tensor:
    return statistic.view(1, -1, *[1] * (x.ndim - 2))


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
