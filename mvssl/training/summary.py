"""The table that a run prints before its first step: views, encoders, batch, candidates, steps, folder.

in   a `Trainer`
out  a table for the terminal
"""

import math
from collections.abc import Iterator

import torch
from rich.table import Table
from rich.text import Text
from torch import nn

from mvssl.distributed import collectives
from mvssl.monitoring.check import Checker
from mvssl.objectives import Objective
from mvssl.process.threads import describe_waiting
from mvssl.text import counted, printable
from mvssl.training.accelerator import is_launched_alone
from mvssl.training.checkpointing import checkpoint_bytes
from mvssl.training.step import Trainer


def summarize(trainer: Trainer, checks: Checker) -> Table:
    """Return what the run will do as a table for the terminal."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, text in _rows(trainer, checks):
        table.add_row(Text(name, "bold"), Text(printable(text)))  # not markup: a folder may be called [red]
    return table


def _rows(trainer: Trainer, checks: Checker) -> Iterator[tuple[str, str]]:
    recipe, model, steps, world = trainer.recipe, trainer.model, trainer.steps, collectives.world_size()
    batch, samples, dropped = recipe.data.batch_size, len(trainer.source), trainer.source.dropped
    yield "run", f"{recipe.train.out}, seed {recipe.train.seed}"
    yield "samples", f"{samples:,}" + f" ({dropped:,} without a column are left out)" * bool(dropped)
    yield "views", ", ".join(f"{name} {list(shape)}" for name, shape in trainer.views.shapes.items())
    for group, encoder in model.encoders.items():
        yield f"encoder {group}", f"{encoder.name}, {_count_millions(encoder)} parameters"
    for name, _, objective in model.terms:
        yield f"objective {name}", f"{_count_millions(objective)} parameters"
        for what, count in objective.candidates(batch).items():
            yield f"  {what}", f"{counted(count, 'candidate')} per anchor{_describe_ceiling(objective, count)}"
    yield "batch", f"{batch} over {counted(world, 'process', 'processes')}, {batch // world} on each"
    if is_launched_alone(world):
        yield (
            "launch",
            (
                "accelerate started one process. With --cpu it always does, whatever --num_processes says. "
                "Use --config_file launch/cpu_2.yaml"
            ),
        )
    yield "batch norm", "over all processes" if world > 1 else "one process"
    yield "steps", f"{steps:,}: {steps * batch / samples:,.2f} epochs of {samples / batch:,.1f} steps"
    yield "checks", _describe_checks(checks)
    size = f"{checkpoint_bytes(trainer) / 1e6:,.1f} MB"
    yield (
        "checkpoints",
        f"every {counted(recipe.train.save_every, 'step')}, {size}; the main process keeps a copy of that size",
    )
    if trainer.device.type == "cpu":
        yield "threads", ", ".join(filter(None, (f"{torch.get_num_threads()} on each process", describe_waiting())))
    if recipe.optim.warmup >= steps:
        yield "warm-up", f"{counted(recipe.optim.warmup, 'step')}, but the run has {steps:,}: lower optim.warmup"
    if trainer.done:
        yield "starts at", f"step {trainer.done:,}"
    tf32_on_cpu = recipe.train.precision == "tf32" and trainer.device.type == "cpu"
    yield "precision", recipe.train.precision + ", which on a CPU is fp32" * tf32_on_cpu
    if trainer.frozen:
        few = ", ".join(trainer.frozen[:4]) + " ..." * (len(trainer.frozen) > 4)
        yield "frozen", f"{counted(len(trainer.frozen), 'tensor')} that get no gradient: {few}"
    if trainer.done >= steps:
        yield "nothing to do", "all steps are done; for more, raise train.steps or train.epochs"


def _describe_ceiling(objective: Objective, candidates: int) -> str:
    """Return the largest value of the bound in words; only the estimator infonce has such a ceiling."""
    name = objective.estimator_name
    return f", so at most {math.log(candidates):.2f} nats" if name == "infonce" else f"; {name} has no ceiling"


def _describe_checks(checks: Checker) -> str:
    """Return when the run is checked, and on what."""
    held, when = checks.held, f"every {counted(checks.every, 'step')}"
    if not checks.every:
        return "none, as train.check_every is 0"
    if held is None:
        return f"{when}, features only: data.val names no held-out shards"
    labels = f", kNN among {held.bank.samples:,} labelled training samples" if held.bank else ""
    return f"{when} on {held.samples:,} held-out samples{labels}"


def _count_millions(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M"
