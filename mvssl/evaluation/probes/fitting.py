"""What probes that train by steps share: minibatches, the loss, a held-out part, the training of critics.

in   numbers of samples, a seed
out  rows of samples for each step; the state of torch's generators does not change
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvssl.evaluation.results.metrics import NotPossible
from mvssl.text import counted

LEAST = 4  # samples that a probe with a held-out part needs
EVERY = 25  # steps of a critic between two scores of the held-out part
PATIENCE = 8  # scores without progress after which training ends
CLIP = 1.0  # largest gradient norm of a critic: the exponential in NWJ and DV has steep walls


def rows_per_step(n: int, batch_size: int) -> int:
    """Return the samples per step: a tenth of a small set, so that 500 steps do not become hundreds of epochs."""
    return min(batch_size, max(n // 10, 64), n)


class Minibatches:
    """The samples of each step, int64 [rows]: `batches[step]` depends on the seed and the number of the step alone.

    Every pass has a new order; the incomplete batch at its end is dropped. One pass is held in memory at a time.
    """

    def __init__(self, n: int, rows: int, steps: int, seed: int):
        self.n, self.rows, self.steps, self.seed = n, rows, steps, seed
        self._pass, self._order = -1, torch.zeros(0, dtype=torch.int64)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Tensor:
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} of {self.steps}")
        number, at = divmod(step, self.n // self.rows)
        if number != self._pass:
            order = np.random.default_rng([self.seed, number]).permutation(self.n)
            self._pass, self._order = number, torch.from_numpy(order)
        return self._order[at * self.rows :][: self.rows]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[step] for step in range(self.steps))


def minibatches(
    n: int, *, batch_size: int, epochs: int, least_steps: int, seed: int, shrink: bool = True
) -> Minibatches:
    """Return the minibatches of `epochs` passes over n samples, and of more passes until there are `least_steps`.

    With `shrink` a small set has small batches (see `rows_per_step`); without, `batch_size` samples, or all.
    """
    rows = rows_per_step(n, batch_size) if shrink else min(batch_size, n)
    return Minibatches(n, rows, max(least_steps, epochs * (n // rows)), seed)


def hold_out(n: int, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the rows to fit on and the held-out rows, int64 each. Raises `NotPossible` where there are too few."""
    if n < LEAST:
        raise NotPossible(f"{counted(n, 'sample')} to fit on; at least {LEAST} are needed")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    held = max(1, round(share * n))
    return order[held:], order[:held]


def refuse_one_class(labels: Tensor) -> None:
    """Raise `NotPossible` where the class numbers [n] of train are all equal: any classifier would be right."""
    if labels.ndim == 1 and len(labels) and bool((labels == labels[0]).all()):
        raise NotPossible("train has one class; a classifier needs at least two")


def loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over samples of the cross-entropy of scores [n, c]; multi-hot: of its sum over classes."""
    if labels.ndim == 1:
        return F.cross_entropy(scores, labels)
    return F.binary_cross_entropy_with_logits(scores, labels, reduction="sum") / len(scores)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch's generators start from `seed`; afterwards they have their earlier state."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def train_critic(
    critic: nn.Module, drawn: Callable[[int], Tensor], held: Callable[[], Tensor], *, steps: int, rate: float
) -> int:
    """Maximise `drawn(step)` by Adam, step 0 to `steps` - 1, and keep the weights of the highest `held()`.

    `drawn` gives the bound on training samples, `held` on samples of train that are held out, so that what a critic
    learns by heart counts for nothing. Return the number of steps after which `held()` was highest, which may be 0.
    """
    adam = torch.optim.Adam(critic.parameters(), lr=rate)
    best, best_step, kept = _finite(held), 0, copy.deepcopy(critic.state_dict())
    for step in range(1, steps + 1):
        with torch.enable_grad():
            loss = -drawn(step - 1)
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(critic.parameters(), CLIP)
        adam.step()
        if step % EVERY == 0:
            value = _finite(held)
            if value > best:
                best, best_step, kept = value, step, copy.deepcopy(critic.state_dict())
            elif step - best_step >= PATIENCE * EVERY:
                break
    critic.load_state_dict(kept)
    return best_step


def _finite(held: Callable[[], Tensor]) -> float:
    with torch.no_grad():
        value = held().item()
    return -math.inf if math.isnan(value) else value
