"""What probes that train by steps share: which samples a step sees, the loss that labels ask for, a part held out.

in   numbers of samples, a seed
out  rows of samples by step; torch's generators are left as they were
"""

import contextlib
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mvssl.evaluate.metrics import NotPossible

LEAST = 4  # samples that a probe with a part held out needs


def rows_per_step(n: int, batch_size: int) -> int:
    """Samples per step: a tenth of a small set, so that 500 steps do not become hundreds of epochs."""
    return min(batch_size, max(n // 10, 64), n)


def minibatches(n: int, *, batch_size: int, epochs: int, least_steps: int, seed: int) -> list[Tensor]:
    """int64 [b] for each step: every epoch in a new order, what is left over at its end dropped.

    A small set has small batches, see `rows_per_step`, and more epochs, until there are `least_steps`.
    """
    rows = rows_per_step(n, batch_size)
    steps = max(least_steps, epochs * (n // rows))
    generator = torch.Generator().manual_seed(seed)
    passes = -(-steps // (n // rows))
    blocks = [torch.randperm(n, generator=generator)[: n // rows * rows].view(-1, rows) for _ in range(passes)]
    return list(torch.cat(blocks)[:steps])


def hold_out(n: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Rows to fit on and rows held out, int64 each. Raises `NotPossible` where there are too few."""
    if n < LEAST:
        raise NotPossible(f"{n} samples to fit on; at least {LEAST} are needed")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    held = max(1, round(share * n))
    return order[held:], order[:held]


def loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean over samples of the cross-entropy of scores [n, c]; with multi-hot labels [n, c] summed over classes."""
    if labels.ndim == 1:
        return F.cross_entropy(scores, labels)
    return F.binary_cross_entropy_with_logits(scores, labels, reduction="sum") / len(scores)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's generators start from `seed`; afterwards they are where they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
