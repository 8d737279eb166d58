"""What probes that train by steps share: minibatches, the loss, held-out samples, the training of a critic.

in   numbers of samples, a seed
out  rows of samples for each step; the state of torch's generators does not change
"""

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvssl.evaluation.results.metrics import NotPossible
from mvssl.text import counted

LEAST = 4  # samples that a probe with held-out samples needs
EVERY = 25  # steps of a critic between two evaluations on held-out samples
PATIENCE = 8  # evaluations without progress after which training ends
CLIP = 1.0  # largest gradient norm of a critic; the exponential in NWJ and DV gives very large gradients


@dataclass(frozen=True)
class Minibatches:
    """The samples of each step, int64 [rows]. Every iteration yields the same, as decided by the seed.

    Every pass has a new order; the incomplete batch at its end is dropped. One pass is held in memory at a time.
    """

    n: int
    rows: int  # samples in a step
    steps: int
    seed: int

    def __iter__(self) -> Iterator[Tensor]:
        orders = (np.random.default_rng([self.seed, number]).permutation(self.n) for number in itertools.count())
        rows = (rows for order in orders for rows in torch.from_numpy(order).split(self.rows)[: self.n // self.rows])
        return itertools.islice(rows, self.steps)


def minibatches(
    n: int, *, batch_size: int, epochs: int, least_steps: int, seed: int, shrink: bool = True
) -> Minibatches:
    """Return the minibatches of `epochs` passes over n samples, and of more passes until there are `least_steps`.

    With `shrink` a small set has small batches (see `rows_per_step`); without, `batch_size` samples, or all.
    """
    rows = rows_per_step(n, batch_size) if shrink else min(batch_size, n)
    return Minibatches(n, rows, max(least_steps, epochs * (n // rows)), seed)


def rows_per_step(n: int, batch_size: int) -> int:
    """Return the samples per step: a tenth of a small set, so that 500 steps do not become hundreds of epochs."""
    return min(batch_size, max(n // 10, 64), n)


def hold_out(n: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the rows to fit on and the held-out rows, int64 each. Raise `NotPossible` if there are too few."""
    if n < LEAST:
        raise NotPossible(f"{counted(n, 'sample')} to fit on; at least {LEAST} are needed")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    held = max(1, round(share * n))
    return order[held:], order[:held]


def refuse_one_class(labels: Tensor) -> None:
    """Raise `NotPossible` if the class numbers [n] of train are all equal: any classifier would be correct."""
    if labels.ndim == 1 and len(labels) and bool((labels == labels[0]).all()):
        raise NotPossible("train has one class; a classifier needs at least two")


def loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over samples of the cross-entropy of scores [n, c]; multi-hot: of its sum over classes."""
    if labels.ndim == 1:
        return F.cross_entropy(scores, labels)
    return F.binary_cross_entropy_with_logits(scores, labels, reduction="sum") / len(scores)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Start torch's generators from `seed`; afterwards they have their earlier state."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def train_critic(
    critic: nn.Module,
    batches: Iterable[Tensor],
    bound: Callable[[Tensor], Tensor],
    held_out_bound: Callable[[], Tensor],
    *,
    rate: float,
) -> int:
    """Maximise `bound(rows)` over the batches by Adam; keep the weights of the highest `held_out_bound()`.

    The held-out samples are samples of train that the batches do not contain. Return the number of steps of the kept
    weights, which may be 0.
    """
    adam = torch.optim.Adam(critic.parameters(), lr=rate)
    best, best_step, kept = _evaluate(held_out_bound), 0, copy.deepcopy(critic.state_dict())
    for step, rows in enumerate(batches, 1):
        with torch.enable_grad():
            negative = -bound(rows)
        adam.zero_grad()
        negative.backward()
        nn.utils.clip_grad_norm_(critic.parameters(), CLIP)
        adam.step()
        if step % EVERY == 0:
            value = _evaluate(held_out_bound)
            if value > best:
                best, best_step, kept = value, step, copy.deepcopy(critic.state_dict())
            elif step - best_step >= PATIENCE * EVERY:
                break
    critic.load_state_dict(kept)
    return best_step


@torch.no_grad()
def _evaluate(held_out_bound: Callable[[], Tensor]) -> float:
    value = held_out_bound().item()
    return -math.inf if math.isnan(value) else value
