"""One optimizer step, and the steps of a run one after the other.

in   a batch: columns [n, ...] of raw samples
out  new weights, the vote of all processes, and metrics; a line of metrics.jsonl for each interval
"""

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mvssl.data import Batch
from mvssl.distributed import collectives
from mvssl.distributed.devices import seed_generator
from mvssl.model import build_context
from mvssl.monitoring.held_out import MonitoredRun
from mvssl.objectives import Context
from mvssl.optim import learning_rate
from mvssl.process.signals import StopRequest
from mvssl.random import hash_name
from mvssl.training import guard
from mvssl.training.fault_counts import FaultCounter
from mvssl.training.log import Log

Enter = Callable[[str], None]  # receives the name of the part that begins: data, views, guard, model, log


def ignore_line(_: str) -> None:
    """Do nothing when a part of a step begins."""


class StepResult(NamedTuple):
    """The result of one step. Tensors are still on the device."""

    vote: guard.Vote
    metrics: dict[str, Tensor]  # detached, 0-d
    learning_rate: float


@dataclass(kw_only=True)
class Trainer(MonitoredRun):
    """All that a step needs; `mvssl.training.preparation` builds it from a recipe.

    `model` is what checkpoints hold, and `wrapped` the same model for DDP and mixed precision. `done` counts the steps
    that the weights were trained for.
    """

    accelerator: Accelerator
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    buffers: guard.BufferSnapshot
    frozen: list[str]  # parameters that no loss reaches
    done: int = 0

    @functools.cached_property
    def parameters(self) -> list[nn.Parameter]:
        """All parameters of the model, listed once: walking through all modules takes a millisecond."""
        return list(self.model.parameters())

    def step(
        self, batch: Batch, number: int, *, stop: bool = False, save: bool = False, enter: Enter = ignore_line
    ) -> StepResult:
        """Take optimizer step `number` (from 0), or change nothing if any process vetoes it.

        `stop` and `save` are requests to this process, which the vote passes on to the others.
        """
        recipe = self.recipe
        # for code that draws from torch's generator: dropout in an encoder, or a view of the user
        seed_generator(hash_name(recipe.train.seed, number, collectives.rank()), self.device)

        enter("views")
        views = self.views(batch, recipe.train.seed, self.device)
        enter("guard")
        self.buffers.take()

        enter("model")
        loss, metrics = self.wrapped(views, self.context(batch, number))
        self.accelerator.backward(loss)

        enter("guard")
        grad_norm = guard.measure_and_clip(self.parameters, recipe.optim.clip)
        vote = guard.collect_vote(loss.detach(), grad_norm, stop=stop, bad=len(batch.bad), save=save)

        enter("model")
        rate = learning_rate(recipe.optim, number, self.steps)
        guard.update_unless(vote.vetoed, self.optimizer, rate)

        enter("guard")
        self.buffers.restore_where(vote.vetoed)
        if self.tracker is not None:
            self.tracker.end_step(batch.index, vote.vetoed)
        self.done = number + 1
        return StepResult(vote, {"loss": loss.detach(), **metrics, "grad_norm": grad_norm}, rate)

    def context(self, batch: Batch, number: int) -> Context:
        """Return what objectives may ask for at step `number` (from 0)."""
        return build_context(batch, self.views, number, self.recipe.train.seed, self.device, self.tracker)


def run_steps(
    trainer: Trainer,
    batches: Iterable[Batch],
    ledger: FaultCounter,
    log: Log,
    stop: StopRequest,
    enter: Enter = ignore_line,
) -> Iterator[int]:
    """Take one step for each batch, count its vote and log its metrics; yield how many steps are done."""
    waiting = iter(batches)
    for number in range(trainer.done, trainer.steps):
        enter("data")
        begin = time.perf_counter()
        batch = next(waiting, None)
        waited = time.perf_counter() - begin
        if batch is None:  # after the last step, or when a process that is alone was asked to stop
            return
        save, stop.save_requested = stop.save_requested, False
        result = trainer.step(batch, number, stop=stop.is_requested(), save=save, enter=enter)
        enter("log")
        ledger.add_step(trainer.done, result.vote, batch.bad)
        log.add(trainer.done, result.metrics, result.vote.vetoed, waited, result.learning_rate)
        yield trainer.done
