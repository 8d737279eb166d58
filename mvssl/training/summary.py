"""The table that a run prints before its first step: views, encoders, batch, candidates, steps, folder.

in   a `Trainer`
out  a table for the terminal
"""

import math
import os

from rich.table import Table
from rich.text import Text
from torch import nn

from mvssl.distributed import collectives
from mvssl.monitoring.check import Checks
from mvssl.objectives import Objective
from mvssl.text import counted, printable
from mvssl.training.step import Trainer


def plan(trainer: Trainer, checks: Checks) -> Table:
    """Return what the run will do as a table: views, encoders, batch, candidates, steps, folder."""
    recipe, source, views, model = trainer.recipe, trainer.source, trainer.views, trainer.model
    start, world, batch, samples, steps = (
        trainer.done,
        collectives.world(),
        recipe.data.batch_size,
        len(source),
        trainer.steps,
    )
    rows = {"run": f"{recipe.train.out}, seed {recipe.train.seed}"}
    rows["samples"] = f"{samples:,}" + (
        f" ({source.dropped:,} without a column are left out)" if source.dropped else ""
    )
    rows["views"] = ", ".join(f"{name} {list(shape)}" for name, shape in views.shapes.items())
    for group, encoder in model.encoders.items():
        rows[f"encoder {group}"] = f"{encoder.name}, {_count_millions(encoder)} parameters"
    for name, _, objective in model.terms:
        rows[f"objective {name}"] = f"{_count_millions(objective)} parameters"
        for what, count in objective.candidates(batch).items():
            rows[f"  {what}"] = f"{counted(count, 'candidate')} per anchor{_describe_ceiling(objective, count)}"
    rows["batch"] = f"{batch} over {counted(world, 'process', 'processes')}, {batch // world} on each"
    if is_launched_alone(world):
        rows["launch"] = (
            "accelerate started one process. With --cpu it always does, whatever --num_processes says. "
            "Use --config_file launch/cpu_2.yaml"
        )
    rows["batch norm"] = "over all processes" if world > 1 else "one process"
    rows["steps"] = f"{steps:,}: {steps * batch / samples:,.2f} epochs of {samples / batch:,.1f} steps"
    rows["checks"] = _describe_checks(checks)
    if trainer.recipe.optim.warmup >= steps:
        rows["warm-up"] = (
            f"{counted(trainer.recipe.optim.warmup, 'step')}, but the run has {steps:,}: lower optim.warmup"
        )
    if start:
        rows["starts at"] = f"step {start:,}"
    tf32_on_cpu = recipe.train.precision == "tf32" and trainer.accelerator.device.type == "cpu"
    rows["precision"] = recipe.train.precision + ", which on a CPU is fp32" * tf32_on_cpu
    if trainer.frozen:
        few = ", ".join(trainer.frozen[:4]) + " ..." * (len(trainer.frozen) > 4)
        rows["frozen"] = f"{counted(len(trainer.frozen), 'tensor')} that get no gradient: {few}"
    if start >= steps:
        rows["nothing to do"] = "all steps are done; for more, raise train.steps or train.epochs"
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, text in rows.items():
        table.add_row(Text(name, "bold"), Text(printable(text)))  # not markup: a folder may be called [red]
    return table


def is_launched_alone(world: int) -> bool:
    """Return whether accelerate's launcher was asked for several processes but started one, as with --cpu."""
    # the launcher then sets an address for the processes, but no WORLD_SIZE
    launched = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys()
    return world == 1 and launched and "WORLD_SIZE" not in os.environ


def _describe_ceiling(objective: Objective, candidates: int) -> str:
    """Return the largest value of the bound in words; only the estimator infonce has such a ceiling."""
    name = objective.estimator_name
    return f", so at most {math.log(candidates):.2f} nats" if name == "infonce" else f"; {name} has no ceiling"


def _describe_checks(checks: Checks) -> str:
    """Return when the run is checked, and on what."""
    held = checks.held
    if not checks.every:
        return "none, as train.check_every is 0"
    when = f"every {counted(checks.every, 'step')}"
    if held is None:
        return f"{when}, features only: data.val names no held-out shards"
    labels = (
        f", kNN among {held.bank_steps * checks.run.recipe.data.batch_size:,} labelled training samples"
        if held.bank
        else ""
    )
    return f"{when} on {held.samples:,} held-out samples{labels}"


def _count_millions(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M"
