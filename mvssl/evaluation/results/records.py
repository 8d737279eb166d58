"""Results as JSON records.

A record is one number with all that is needed to read it. `protocol` holds what must agree between numbers that are
compared: the data, labels, seed, every setting of the probe. What belongs to the encoder alone stands beside it:
`subject` (who it is), `chosen` (what its data decided), `versions`. The tables are drawn in `tables`.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired

from pydantic import FiniteFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from mvssl.errors import OutputError, RecipeError
from mvssl.evaluation.results.metrics import DRAWS, NOTHING, Difference, Result, interval, paired
from mvssl.files import RECORDS, write_file
from mvssl.recipe import Recipe

Record = dict[str, Any]
WHAT = ("probe", "what", "metric", "view", "layer")  # what was measured, of whichever encoder
SETTINGS = ("label", "segments", "mode")  # of a protocol, beside its numbers, that tell evaluations of a run apart


def record(result: Result, **facts: Any) -> Record:
    """A result as a JSON object; `facts` are the keys that say what was measured."""
    between, metric = interval(result), result.metric
    made = {
        **facts,
        "what": result.what,
        "metric": metric.name,
        "unit": metric.unit,
        "higher_is_better": metric.higher_is_better,
        "value": result.value,
        "standard_error": result.standard_error,
        "interval_95": None if between is None else list(between),
        "chance": result.chance,
        "protocol": {**facts.get("protocol", {}), **result.protocol},
        "chosen": dict(result.chosen),
    }
    if result.also:
        made["also"] = dict(result.also)
    if result.draws is not None:
        made["draws"] = result.draws.tolist()
    return made


def identity(record: Record) -> tuple[Any, ...]:
    """What was measured, how and of what: two records of one identity are the same number, measured twice.

    How is every number of the protocol (seed, epochs, draws, k, ...), whose label it was and in which precision.
    """
    what = [record.get(key) for key in (*WHAT, "encoder")]
    protocol, subject = record["protocol"], record.get("subject", {})
    data = protocol.get("data", {})
    shards = [(split, about.get("fingerprint")) for split, about in sorted(data.items())]
    preset = protocol.get("preset") or {}
    settings = [json.dumps(protocol.get(key), sort_keys=True) for key in SETTINGS]
    settings += sorted((key, value) for key, value in protocol.items() if isinstance(value, int | float))
    return *what, subject.get("name"), subject.get("step"), preset.get("name"), *settings, *shards


def about_label(recipe: Recipe) -> dict[str, Any] | None:
    """What a protocol says of the labels."""
    return recipe.data.label and recipe.data.label.model_dump(mode="json", exclude_none=True)


def read(file: Path) -> list[Record]:
    """The records in a file that readers can use; none where there is no such file."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):
        return []
    return [r for r in found if is_record(r)] if isinstance(found, list) else []


class _Gain(TypedDict):
    difference: FiniteFloat
    standard_error: NotRequired[FiniteFloat | None]
    standard_deviation: NotRequired[FiniteFloat | None]


class _Subject(TypedDict):
    name: NotRequired[str]
    step: NotRequired[int | None]
    chosen: NotRequired[str]
    objective: NotRequired[str]
    features: NotRequired[str]


class _Preset(TypedDict):
    name: str


class _Protocol(TypedDict):
    data: NotRequired[dict[str, dict[str, Any]]]
    preset: NotRequired[_Preset | None]
    seed: NotRequired[int | None]
    epochs: NotRequired[FiniteFloat | None]
    paper_epochs: NotRequired[FiniteFloat | None]


class _Readable(TypedDict):
    """What readers of records ask for; a record may hold more."""

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
    protocol: _Protocol
    what: NotRequired[str | None]
    standard_error: NotRequired[FiniteFloat | None]
    standard_deviation: NotRequired[FiniteFloat | None]
    chance: NotRequired[FiniteFloat | None]
    layer_called: NotRequired[str]
    subject: NotRequired[_Subject]
    gain: NotRequired[dict[str, _Gain]]
    draws: NotRequired[list[FiniteFloat]]
    runs: NotRequired[dict[str, FiniteFloat]]
    shards: NotRequired[dict[str, list[str]]]


_READABLE = TypeAdapter(_Readable)


def is_record(found: Any) -> bool:
    """Whether JSON is a record that every reader can use: a file may be another program's, damaged, or older."""
    try:
        _READABLE.validate_python(found, strict=True)
    except ValidationError:
        return False
    return True


def updated(file: Path, records: list[Record]) -> list[Record]:
    """The records of `file` with `records` in place of those of the same identity, and the new ones after them."""
    whole = {identity(r): r for r in (*read(file), *records)}
    return list(whole.values())


def save(file: Path, records: list[Record]) -> None:
    """Write `file`, whole or not at all, in a folder that is there. Raises `OutputError`."""
    write_file(file, json.dumps(records, indent=1) + "\n", OutputError, RECORDS.hint)


def gain(ahead: Result, behind: Result) -> dict[str, Any]:
    """The paired difference as a JSON object, with `ahead_by` in standard errors (null where there is none)."""
    difference, error, over = paired(ahead, behind)
    return {
        "difference": difference,
        "standard_error": error,
        "ahead_by": difference / error if error else None,
        "paired_over": over,
    }


def compare(ahead: Record, behind: Record) -> Difference:
    """Difference of two records, of this run or another's.

    Draws of labels are paired where both hold them. Of the test samples a record holds no more than their share of its
    standard error; the two are added in squares, which is larger than the paired error in `gain`. Raises `RecipeError`
    that says what differs where the protocols do.
    """
    faults = [f"{name} is {a} and {b}" for name, a, b in differences(ahead, behind)]
    if faults:
        raise RecipeError(f"these records cannot be compared: {'; '.join(faults)}")
    difference, errors = ahead["value"] - behind["value"], [ahead["standard_error"], behind["standard_error"]]
    if None in errors:
        return Difference(difference, None, NOTHING)
    if "draws" not in ahead:
        return Difference(difference, math.hypot(*errors), NOTHING)
    samples = [max(r["standard_error"] ** 2 - _of_draws(r["draws"]), 0.0) for r in (ahead, behind)]
    draws = _of_draws([a - b for a, b in zip(ahead["draws"], behind["draws"], strict=True)])
    return Difference(difference, math.sqrt(draws + sum(samples)), DRAWS)


def _of_draws(values: list[float]) -> float:
    """The variance of the mean of some draws."""
    mean, n = sum(values) / len(values), len(values)
    return sum((value - mean) ** 2 for value in values) / max(n - 1, 1) / n


def differences(one: Record, other: Record) -> Iterator[tuple[str, Any, Any]]:
    """Where the protocols of two records differ: dotted name and both values; nothing where they may be compared."""
    keys = ("probe", "what", "metric", "n_train", "n_test", "classes_left_out", "protocol")
    yield from apart("", {key: one.get(key) for key in keys}, {key: other.get(key) for key in keys})


def apart(place: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Where two nested tables differ: dotted name, and both values, None where there is none."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            yield from apart(f"{place}.{key}".lstrip("."), one.get(key), other.get(key))
    elif one != other:
        yield place, one, other
