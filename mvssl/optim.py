"""From named parameters to an optimizer: weights decay, norms and biases do not."""

import torch
from torch import nn

from mvssl import recipe, schedules


def build_optimizer(model: nn.Module, table: recipe.Optim) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters in two groups: matrices and kernels with weight decay, vectors without.

    Fused, so that one kernel updates everything and a step can be vetoed on the device: with `optimizer.found_inf`
    set to 1 it changes neither weights nor moments nor its step count.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": table.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=table.lr, betas=table.betas, eps=table.eps, fused=True)


def learning_rate(table: recipe.Optim, step: int, steps: int) -> float:
    """The rate of `step` (from 0) in a run of `steps`: linear warm-up, then cosine or constant."""
    if table.schedule == "cosine":
        share = schedules.cosine(step, steps=steps, warmup=table.warmup, final=table.final)
    else:
        share = schedules.warm(step, warmup=table.warmup)
    return table.lr * share
