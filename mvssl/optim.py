"""The optimizer of a model, and the learning rate of each step."""

import math

import torch
from torch import nn

from mvssl.recipe import Optim


def build_optimizer(model: nn.Module, table: Optim) -> torch.optim.Optimizer:
    """Return AdamW over the trainable parameters: matrices and kernels with weight decay, norms and biases without.

    It is fused, so the device can skip a step: if `optimizer.found_inf` is 1, weights, moments and step count stay.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": table.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=table.lr, betas=table.betas, eps=table.eps, fused=True)


def learning_rate(table: Optim, step: int, steps: int) -> float:
    """Return the rate of `step` (from 0) in a run of `steps`: linear warm-up, then cosine or constant."""
    if table.schedule == "cosine":
        share = cosine_share(step, steps=steps, warmup=table.warmup, final=table.final)
    else:
        share = warmup_share(step, warmup=table.warmup)
    return table.lr * share


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def warmup_share(step: int, *, warmup: int) -> float:
    """Return the share of the full rate: linear from 1/warmup at step 0 to 1 at step warmup - 1, then 1."""
    return min((step + 1) / warmup, 1.0) if warmup else 1.0


def cosine_share(step: int, *, steps: int, warmup: int = 0, final: float = 0.0) -> float:
    """Return the share of the full rate: warm-up, then half a cosine that reaches `final` at the last of `steps`.

    Loshchilov and Hutter, 2017, arXiv:1608.03983, without restarts.

    >>> [round(cosine_share(step, steps=5), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup:
        return warmup_share(step, warmup=warmup)
    done = min((step - warmup) / max(steps - 1 - warmup, 1), 1.0)
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2
