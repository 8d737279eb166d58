"""The head of the page: what was trained, on what, how long, how it ended, and what it learned in one line."""

import math
import os
from datetime import timedelta

from mvssl.data import pattern_list
from mvssl.process.signals import CODES
from mvssl.reporting.gather import Facts, Series
from mvssl.reporting.html import Html, el
from mvssl.reporting.samples import Look
from mvssl.reporting.scale import short
from mvssl.reporting.sections import Section
from mvssl.reporting.sections.probes import highlight
from mvssl.runs.exit_record import parse_exit
from mvssl.text import counted

STILL = 600  # seconds after its last line for which a run without exit.json passes as training


def summary(facts: Facts, look: Look | None, samples: int | None) -> Section:
    """`samples` is the number of training samples, where the shards are at hand."""
    recipe, rows = facts.recipe, {}
    rows["Objective"] = ", ".join(_objective(term) for term in recipe.objective)
    rows["Views"] = ", ".join(_view(name, look) for name in recipe.views)
    rows["Encoder"] = ", ".join(_encoder(group, table.name, look) for group, table in recipe.encoder.items())
    rows["Data"] = ", ".join(pattern_list(recipe.data.train)) or "a dataset of one's own"
    rows["Data"] += f", {counted(samples, 'sample')}" if samples else ""
    rows["Batch"] = f"{counted(recipe.data.batch_size, 'sample')}, {recipe.train.precision}, seed {recipe.train.seed}"
    rows["Length"] = length(facts, samples)
    rows["State"] = state(facts)
    if "val/loss" in facts.metrics:
        rows["Held out"] = _held_out(facts.metrics["val/loss"])
    if facts.verdict.get("verdict"):
        rows["Verdict"] = str(facts.verdict["verdict"])
    learned = highlight(facts.records)
    if learned:
        rows["Learned"] = learned
    if facts.left_out:
        rows["Left out"] = "; ".join(facts.left_out)
    listing = el("dl", [el("div", el("dt", name), el("dd", text)) for name, text in rows.items()], class_="facts")
    return Section("summary", "Summary", el("div", _tiles(facts, samples), listing))


def _tiles(facts: Facts, samples: int | None) -> Html:
    """The few numbers that one looks for first."""
    planned = planned_steps(facts, samples)
    tiles = {"steps": f"{facts.step:,}" + (f" of {planned:,}" if planned else "")}
    spent = seconds(facts)
    if spent:
        tiles["time training"] = lasted(spent)
        tiles["samples/s"] = f"{facts.step * facts.recipe.data.batch_size / spent:,.0f}"
    if "loss" in facts.metrics:
        tiles["loss"] = short(facts.metrics["loss"].last)
    if "val/loss" in facts.metrics:
        tiles["held-out loss"] = short(facts.metrics["val/loss"].last)
    return el("ul", [el("li", el("b", value), el("span", name)) for name, value in tiles.items()], class_="tiles")


def _held_out(loss: Series) -> str:
    least, step = min(zip(loss.values, loss.steps, strict=True))
    return f"loss {short(loss.last)} at step {loss.steps[-1]:,}" + (
        f"; lowest {short(least)} at step {step:,}" if step != loss.steps[-1] else ", the lowest"
    )


def state(facts: Facts) -> str:
    """Whether the run is finished, stopped, failed, killed, or still in training."""
    record = parse_exit(facts.exit)
    if record is None:
        if not math.isfinite(facts.age):
            return "no step has been logged yet"
        if facts.age < STILL:
            return f"in training; the last line was written {lasted(facts.age)} ago"
        return f"ended without a word, or stands still: the last line was written {lasted(facts.age)} ago"
    if record.code is None:
        if record.alive and record.process == os.getpid():
            return "finished"  # the page is a part of train.then
        return f"in training: {record}" if record.alive is not False else str(record)
    if record.code == 0:
        return "finished"
    return f"stopped: {record.reason}" if record.code in CODES.values() else str(record)


def length(facts: Facts, samples: int | None) -> str:
    """Steps, epochs where the number of samples is known, and time, in words."""
    seen = facts.step * facts.recipe.data.batch_size
    parts = [counted(facts.step, "step"), f"{counted(seen, 'sample')} seen"]
    parts += [f"{seen / samples:,.1f} epochs"] if samples else []
    spent = seconds(facts)
    return ", ".join(parts) + (f", in {lasted(spent)}" if spent else "")


def planned_steps(facts: Facts, samples: int | None) -> int | None:
    """How many steps the recipe asks for, where that can be told."""
    train = facts.recipe.train
    if train.steps or not samples:
        return train.steps
    return math.ceil((train.epochs or 0) * samples / facts.recipe.data.batch_size)


def seconds(facts: Facts) -> float:
    """Time that the steps took, by their own pace, resumed parts included and pauses left out."""
    pace = facts.metrics.get("samples_per_second")
    if pace is None:
        return 0.0
    taken = [step - before for before, step in zip([0, *pace.steps], pace.steps, strict=False)]
    batch = facts.recipe.data.batch_size
    return sum(steps * batch / rate for steps, rate in zip(taken, pace.values, strict=True) if rate > 0)


def lasted(spent: float) -> str:
    """A duration as one says it: 48 s, 9 min 40 s, 3 h 5 min, 2 days 4 h."""
    whole = timedelta(seconds=round(spent))
    minutes, s = divmod(whole.seconds, 60)
    h, m = divmod(minutes, 60)
    if whole.days:
        return f"{counted(whole.days, 'day')} {h} h"
    return f"{h} h {m} min" if h else f"{m} min {s} s" if m else f"{s} s"


def _objective(term) -> str:
    shown = [f"{key} {value}" for key, value in term.options.items() if isinstance(value, str | int | float)]
    weight = [f"weight {term.weight:g}"] if term.weight != 1 else []
    return f"{term.name} ({', '.join(weight + shown)})" if weight + shown else term.name


def _view(name: str, look: Look | None) -> str:
    if look is None:
        return name
    shape = " x ".join(map(str, look.run.views.view(name).shape))
    count = look.run.recipe.views[name].count
    return f"{name} {shape}" + (f", {count} draws" if count > 1 else "")


def _encoder(group: str, name: str, look: Look | None) -> str:
    if look is None:
        return f"{name} for {group}"
    encoder = look.run.model.encoder_of(group.partition(",")[0].strip())
    count = sum(p.numel() for p in encoder.parameters()) / 1e6
    return f"{name} for {group} ({count:.2f} M parameters, {encoder.widths.vector} features)"
