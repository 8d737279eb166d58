"""The head of the page: what was trained, on what, how long, how it ended, and what it learned in one line."""

import math
import os
from datetime import timedelta

from mvssl.data import pattern_list
from mvssl.process.signals import CODES
from mvssl.recipe import ObjectiveConfig
from mvssl.reporting.content import Block, Terms, short
from mvssl.reporting.inputs import Inputs
from mvssl.reporting.run_files import RunFiles
from mvssl.reporting.samples import EncodedSamples
from mvssl.reporting.sections.probes import describe_best
from mvssl.runs.exit_record import ExitRecord
from mvssl.runs.metric_series import Series
from mvssl.text import counted

SILENT = 600  # seconds after its last line during which a run without exit.json counts as in training


def show_summary(inputs: Inputs) -> list[Block]:
    """Return the numbers that a reader looks for first, and the summary."""
    facts, encoded = inputs.facts, inputs.encoded.value
    samples = len(inputs.training.value) if inputs.training.value else None
    recipe = facts.recipe
    data = ", ".join(pattern_list(recipe.data.train)) or "a dataset of one's own"
    learned, diagnosis = describe_best(facts.records), facts.diagnosis.get("verdict")
    rows = {
        "Objective": ", ".join(map(_describe_objective, recipe.objective)),
        "Views": ", ".join(_describe_view(name, encoded) for name in recipe.views),
        "Encoder": ", ".join(_describe_encoder(views, of.name, encoded) for views, of in recipe.encoder.items()),
        "Data": f"{data}, {counted(samples, 'sample')}" if samples else data,
        "Batch": f"{counted(recipe.data.batch_size, 'sample')}, {recipe.train.precision}, seed {recipe.train.seed}",
        "Length": describe_length(facts, samples),
        "State": describe_state(facts),
        "Held out": _describe_held_out(facts.metrics["val/loss"]) if "val/loss" in facts.metrics else None,
        "Diagnosis": diagnosis,
        "Learned": learned,
        "Left out": "; ".join(facts.left_out),
    }
    return [Terms(_read_tiles(facts, samples), tiles=True), Terms({term: text for term, text in rows.items() if text})]


def _read_tiles(facts: RunFiles, samples: int | None) -> dict[str, str]:
    planned, train, batch = facts.recipe.train.steps, facts.recipe.train, facts.recipe.data.batch_size
    if not planned and samples:
        planned = math.ceil((train.epochs or 0) * samples / batch)
    tiles = {"steps": f"{facts.step:,}" + (f" of {planned:,}" if planned else "")}
    seconds = measure_seconds(facts)
    if seconds:
        tiles |= {"time training": describe_duration(seconds), "samples/s": f"{facts.step * batch / seconds:,.0f}"}
    for key, name in (("loss", "loss"), ("val/loss", "held-out loss")):
        if key in facts.metrics:
            tiles[name] = short(facts.metrics[key].last)
    return tiles


def _describe_held_out(loss: Series) -> str:
    lowest, step = min(zip(loss.values, loss.steps, strict=True))
    before = f"; lowest {short(lowest)} at step {step:,}" if step != loss.steps[-1] else ", the lowest"
    return f"loss {short(loss.last)} at step {loss.steps[-1]:,}{before}"


def describe_state(facts: RunFiles) -> str:
    """Return whether the run is finished, stopped, failed, killed, or still in training."""
    record = ExitRecord.parse(facts.exit)
    if record is None:
        if not math.isfinite(facts.age):
            return "no step has been logged yet"
        written = f"the last line was written {describe_duration(facts.age)} ago"
        return f"in training; {written}" if facts.age < SILENT else f"ended without a record, or hangs: {written}"
    if record.code is None:
        if record.alive and record.process == os.getpid():
            return "finished"  # this page is a part of train.then
        return f"in training: {record}" if record.alive is not False else str(record)
    if record.code == 0:
        return "finished"
    return f"stopped: {record.reason}" if record.code in CODES.values() else str(record)


def describe_length(facts: RunFiles, samples: int | None) -> str:
    """Return steps, samples, epochs if the number of samples is known, and time."""
    seen = facts.step * facts.recipe.data.batch_size
    parts = [counted(facts.step, "step"), f"{counted(seen, 'sample')} seen"]
    parts += [f"{seen / samples:,.1f} epochs"] if samples else []
    seconds = measure_seconds(facts)
    return ", ".join(parts) + (f", in {describe_duration(seconds)}" if seconds else "")


def measure_seconds(facts: RunFiles) -> float:
    """Return the time of all steps by their own pace: resumed parts count, pauses do not."""
    pace = facts.metrics.get("samples_per_second")
    if pace is None:
        return 0.0
    steps = [step - before for before, step in zip([0, *pace.steps], pace.steps, strict=False)]
    batch = facts.recipe.data.batch_size
    return sum(count * batch / rate for count, rate in zip(steps, pace.values, strict=True) if rate > 0)


def describe_duration(seconds: float) -> str:
    """Return a duration such as 48 s, 9 min 40 s, 3 h 5 min, or 2 days 4 h."""
    duration = timedelta(seconds=round(seconds))
    minutes, s = divmod(duration.seconds, 60)
    h, m = divmod(minutes, 60)
    if duration.days:
        return f"{counted(duration.days, 'day')} {h} h"
    return f"{h} h {m} min" if h else f"{m} min {s} s" if m else f"{s} s"


def _describe_objective(objective: ObjectiveConfig) -> str:
    weight = [f"weight {objective.weight:g}"] if objective.weight != 1 else []
    options = [f"{key} {value}" for key, value in objective.options.items() if isinstance(value, str | int | float)]
    return f"{objective.name} ({', '.join(weight + options)})" if weight + options else objective.name


def _describe_view(name: str, encoded: EncodedSamples | None) -> str:
    if encoded is None:
        return name
    shape = " x ".join(map(str, encoded.run.views.view(name).shape))
    count = encoded.run.recipe.views[name].count
    return f"{name} {shape}" + (f", {count} draws" if count > 1 else "")


def _describe_encoder(views: str, name: str, encoded: EncodedSamples | None) -> str:
    if encoded is None:
        return f"{name} for {views}"
    encoder = encoded.run.model.encoder_of(views.partition(",")[0].strip())
    millions = sum(parameter.numel() for parameter in encoder.parameters()) / 1e6
    return f"{name} for {views} ({millions:.2f} M parameters, {encoder.widths.vector} features)"
