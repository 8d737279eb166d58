"""What a run says of itself before its first step: views, encoders, batch, candidates, steps, place.

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


def plan(trainer: Trainer, start: int, checks: Checks) -> Table:
    """What the run will do from step `start` on, as a table: views, encoders, batch, candidates, steps, place."""
    recipe, source, views, model = trainer.recipe, trainer.source, trainer.views, trainer.model
    world, batch, samples, steps = collectives.world(), recipe.data.batch_size, len(source), trainer.steps
    rows = {"run": f"{recipe.train.out}, seed {recipe.train.seed}"}
    rows["samples"] = f"{samples:,}" + (f" ({source.dropped:,} that lack a column left out)" if source.dropped else "")
    rows["views"] = ", ".join(f"{name} {list(shape)}" for name, shape in views.shapes.items())
    for group, encoder in model.encoders.items():
        rows[f"encoder {group}"] = f"{encoder.name}, {_millions(encoder)} parameters"
    for name, _, objective in model.terms:
        rows[f"objective {name}"] = f"{_millions(objective)} parameters"
        for what, count in objective.candidates(batch).items():
            rows[f"  {what}"] = f"{counted(count, 'candidate')} per anchor{_ceiling(objective, count)}"
    rows["batch"] = f"{batch} over {counted(world, 'process', 'processes')}, {batch // world} on each"
    if is_lonely(world):
        rows["launch"] = (
            "accelerate started one process; with --cpu it does, however many --num_processes asks for: "
            "use --config_file launch/cpu_2.yaml"
        )
    rows["batch norm"] = "over all processes" if world > 1 else "one process"
    rows["steps"] = f"{steps:,}: {steps * batch / samples:,.2f} epochs of {samples / batch:,.1f} steps"
    rows["checks"] = _checks(checks)
    if trainer.recipe.optim.warmup >= steps:
        rows["warm-up"] = (
            f"{counted(trainer.recipe.optim.warmup, 'step')}, and the run has {steps:,}: lower optim.warmup"
        )
    if start:
        rows["starts at"] = f"step {start:,}"
    idle = recipe.train.precision == "tf32" and trainer.accelerator.device.type == "cpu"
    rows["precision"] = recipe.train.precision + ", which on a CPU is fp32" * idle
    if trainer.frozen:
        few = ", ".join(trainer.frozen[:4]) + " ..." * (len(trainer.frozen) > 4)
        rows["frozen"] = f"{counted(len(trainer.frozen), 'tensor')} that no loss reaches: {few}"
    if start >= steps:
        rows["nothing to do"] = "all steps are done; take more with train.steps or train.epochs"
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, text in rows.items():
        table.add_row(Text(name, "bold"), Text(printable(text)))  # a folder may be called [red]
    return table


def is_lonely(world: int) -> bool:
    """Whether accelerate's launcher was asked for several processes and started one, as with --cpu."""
    # it then gives an address to meet at, and no WORLD_SIZE
    launched = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys()
    return world == 1 and launched and "WORLD_SIZE" not in os.environ


def _ceiling(objective: Objective, candidates: int) -> str:
    """The largest value of the bound; only the estimator infonce has such a ceiling."""
    name = objective.estimator_name
    return f", so at most {math.log(candidates):.2f} nats" if name == "infonce" else f"; {name} has no ceiling"


def _checks(checks: Checks) -> str:
    """When the run looks at itself, and at what."""
    held = checks.held
    if not checks.every:
        return "none, as train.check_every is 0"
    when = f"every {counted(checks.every, 'step')}"
    if held is None:
        return f"{when}, of features alone: data.val names no held-out shards"
    labels = (
        f", kNN among {held.bank_steps * checks.trainer.recipe.data.batch_size:,} labelled training samples"
        if held.bank
        else ""
    )
    return f"{when} on {held.samples:,} held-out samples{labels}"


def _millions(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M"
