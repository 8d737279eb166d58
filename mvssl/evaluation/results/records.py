"""Results as JSON records.

A `Record` is one number with all that is needed to read it. `protocol` holds the settings that must be equal for
numbers that are compared: the data, the labels, the seed, every setting of the probe. Other keys belong to one encoder:
`subject` identifies it, and `chosen` holds the settings that its data decided.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NotRequired, TypeGuard, TypeVar, cast

from pydantic import FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from mvssl.errors import OutputError, RecipeError
from mvssl.evaluation.results.metrics import DRAWS, NOTHING, Difference, Result, confidence_interval, paired
from mvssl.files import RECORDS, read_json, write_file
from mvssl.recipe import Recipe
from mvssl.recipe.messages import table_differences

Item = TypeVar("Item")
PIXELS = "pixels"  # the raw inputs: the baseline without layers
ROW = ("probe", "what", "metric", "view", "layer")  # keys that identify a row of a table
SETTINGS = ("label", "segments", "mode")  # keys of a protocol that belong to the identity, as its numbers do


class Gain(TypedDict):
    """The difference of the trained encoder and a baseline, on the same samples or draws."""

    difference: FiniteFloat
    standard_error: NotRequired[FiniteFloat | None]
    standard_deviation: NotRequired[FiniteFloat | None]  # over runs
    ahead_by: NotRequired[FiniteFloat | None]  # in standard errors
    paired_over: NotRequired[str]


class RecordSubject(TypedDict):
    """The encoder that was measured. Further keys depend on its kind."""

    name: NotRequired[str]
    step: NotRequired[int | None]
    chosen: NotRequired[str]  # what decided the step
    objective: NotRequired[str]  # if the layer is a head
    features: NotRequired[str]  # how the features were made


class Preset(TypedDict):
    """The protocol of a paper."""

    name: str


class RecordProtocol(TypedDict):
    """The settings that must be equal for numbers that are compared. Each probe adds its own."""

    data: NotRequired[dict[str, dict[str, Any]]]
    preset: NotRequired[Preset | None]
    seed: NotRequired[int | None]
    epochs: NotRequired[FiniteFloat | None]
    paper_epochs: NotRequired[FiniteFloat | None]


class Record(TypedDict):
    """One number. These keys are read. A record in a file may have more keys, or fewer if an older version wrote it."""

    probe: str
    metric: str
    view: str
    layer: str
    encoder: str
    unit: str
    value: FiniteFloat
    n_train: int
    n_test: int
    higher_is_better: bool
    protocol: RecordProtocol
    what: NotRequired[str | None]
    standard_error: NotRequired[FiniteFloat | None]
    standard_deviation: NotRequired[FiniteFloat | None]  # over runs
    chance: NotRequired[FiniteFloat | None]
    layer_called: NotRequired[str]  # the paper's name of the layer
    subject: NotRequired[RecordSubject]
    gain: NotRequired[dict[str, Gain]]
    draws: NotRequired[list[FiniteFloat]]  # the value of each draw
    runs: NotRequired[dict[str, FiniteFloat]]  # the value of each run
    shards: NotRequired[dict[str, list[str]]]
    chosen: NotRequired[Any]
    interval_95: NotRequired[Any]
    classes_left_out: NotRequired[Any]
    versions: NotRequired[Any]
    device: NotRequired[Any]
    also: NotRequired[Any]  # further metrics of the same scores


_RECORD = TypeAdapter(Record)


def is_record(value: Any) -> TypeGuard[Record]:
    """Return whether a JSON value is a valid record. A file may be damaged, older, or of another program."""
    try:
        _RECORD.validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def build_record(result: Result, **facts: Any) -> Record:
    """Return a result as a record. `facts` are the keys that describe the measurement."""
    limits, (name, unit, higher_is_better, *_) = confidence_interval(result), result.metric
    record = {
        **facts,
        "what": result.what,
        "metric": name,
        "unit": unit,
        "higher_is_better": higher_is_better,
        "value": result.value,
        "standard_error": result.standard_error,
        "interval_95": None if limits is None else list(limits),
        "chance": result.chance,
        "protocol": {**facts.get("protocol", {}), **result.protocol},
        "chosen": dict(result.chosen),
    }
    if result.also:
        record["also"] = dict(result.also)
    if result.draws is not None:
        record["draws"] = result.draws.tolist()
    return cast(Record, record)


def identity(record: Record) -> tuple[Any, ...]:
    """Return the identity of a record: two records of equal identity are the same number, measured twice.

    It holds the row, the encoder, the subject, the data, every number of the protocol (seed, epochs, draws, k, ...),
    the label and the precision.
    """
    row = [record.get(key) for key in (*ROW, "encoder")]
    protocol, subject = record["protocol"], record.get("subject", {})
    shards = [(split, about.get("fingerprint")) for split, about in sorted(protocol.get("data", {}).items())]
    preset = protocol.get("preset") or {}
    settings: list[Any] = [json.dumps(protocol.get(key), sort_keys=True) for key in SETTINGS]
    settings += sorted((key, value) for key, value in protocol.items() if isinstance(value, int | float))
    return *row, subject.get("name"), subject.get("step"), preset.get("name"), *settings, *shards


def subject_of(record: Record) -> tuple[str, int]:
    """Return the name and the step of what was measured: "" and 0 if they are not known."""
    subject = record.get("subject", {})
    return subject.get("name", ""), subject.get("step") or 0


def group_by(items: Iterable[Item], fits: Callable[[Item, list[Item]], bool]) -> list[list[Item]]:
    """Put each item into the first group that it fits, or into a new one. `fits` takes an item and a group."""
    groups: list[list[Item]] = []
    for item in items:
        group = next((group for group in groups if fits(item, group)), None)
        if group is None:
            groups.append(group := [])
        group.append(item)
    return groups


def describe_label(recipe: Recipe) -> dict[str, Any] | None:
    """Return the entry of a protocol for the labels."""
    return recipe.data.label and recipe.data.label.model_dump(mode="json", exclude_none=True)


def read(file: Path) -> list[Record]:
    """Return the valid records of a file, or none if it does not exist."""
    records = read_json(file)
    return [record for record in records if is_record(record)] if isinstance(records, list) else []


def merge_into(file: Path, records: list[Record]) -> list[Record]:
    """Return the records of `file` and `records`. A new record replaces the old one of equal identity."""
    return list({identity(record): record for record in (*read(file), *records)}.values())


def save(file: Path, records: list[Record]) -> None:
    """Write `file` completely or not at all; its folder must exist. Raise `OutputError` if it cannot be written."""
    write_file(file, json.dumps(records, indent=1) + "\n", OutputError, RECORDS.hint)


def gain_of(ahead: Result, behind: Result) -> Gain:
    """Return the paired difference; `ahead_by` is in standard errors, or None without one."""
    difference, error, over = paired(ahead, behind)
    return {
        "difference": difference,
        "standard_error": error,
        "ahead_by": difference / error if error else None,
        "paired_over": over,
    }


def compare(ahead: Record, behind: Record) -> Difference:
    """Return the difference of two records, of one run or of two.

    Draws of labels are paired if both records hold them. A record does not hold its test samples, only their part of
    the standard error. The squares of the two parts are added. The sum is larger than the paired error in `gain`. Raise
    `RecipeError` with the differences if the protocols are not equal.
    """
    faults = [f"{name} is {a} and {b}" for name, a, b in protocol_differences(ahead, behind)]
    if faults:
        raise RecipeError(f"these records cannot be compared: {'; '.join(faults)}")
    difference = ahead["value"] - behind["value"]
    one, other = ahead.get("standard_error"), behind.get("standard_error")
    if one is None or other is None:
        return Difference(difference, None, NOTHING)
    if "draws" not in ahead or "draws" not in behind:
        return Difference(difference, math.hypot(one, other), NOTHING)
    samples = [
        max(error**2 - _variance_of_mean(draws), 0.0)
        for error, draws in ((one, ahead["draws"]), (other, behind["draws"]))
    ]
    draws = _variance_of_mean([a - b for a, b in zip(ahead["draws"], behind["draws"], strict=True)])
    return Difference(difference, math.sqrt(draws + sum(samples)), DRAWS)


def _variance_of_mean(values: list[float]) -> float:
    mean, n = sum(values) / len(values), len(values)
    return sum((value - mean) ** 2 for value in values) / max(n - 1, 1) / n


def protocol_differences(one: Record, other: Record) -> Iterator[tuple[str, Any, Any]]:
    """Yield the differences of two protocols: dotted name and both values. Without any, records may be compared."""
    keys = ("probe", "what", "metric", "n_train", "n_test", "classes_left_out", "protocol")
    yield from table_differences("", {key: one.get(key) for key in keys}, {key: other.get(key) for key in keys})
