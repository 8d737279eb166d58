"""JSON from files that anyone may have touched: damaged by a kill, edited by hand, written by another version.

in   the text of a file, or of one of its lines
out  what it holds, or None; never an exception
"""

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e300, le=1e300)]
Text = Annotated[str, Field(strict=True)]


def parsed(text: str) -> Any:
    """What the text holds, or None where it is no JSON, too deep, or holds a number of thousands of digits."""
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():  # half a character, which no file and no terminal takes, becomes ?
            value = json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
        return value
    except (ValueError, RecursionError):
        return None


def step_of(line: Any) -> int | None:
    """The step of a line of metrics, or None where it has none."""
    step = line.get("step") if isinstance(line, dict) else None
    return step if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**63 else None


def is_value(value: Any) -> bool:
    """Whether this is a number that can be drawn, or null; JSON knows integers beyond every float."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300)


class _Open(BaseModel):
    """Further keys may hold anything."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Finding(_Open):
    what: Text | None = None
    view: Text | None = None
    value: Number | None = None
    threshold: Number | None = None
    sentence: Text | None = None
    advice: Text | None = None


class _Verdict(_Open):
    """verdict.json."""

    step: int | None = None
    verdict: Text | None = None
    summary: Text | None = None
    findings: list[_Finding] | None = None


class _Exit(_Open):
    """exit.json."""

    code: int | None
    reason: Text
    host: Text = ""
    process: int = 0
    started: Number = 0.0


class _Versions(BaseModel):
    """versions.json: name -> version."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Text]


FORMS: dict[str, type[BaseModel]] = {"verdict.json": _Verdict, "exit.json": _Exit, "versions.json": _Versions}


def is_file_of_a_run(name: str, value: Any) -> bool:
    """Whether this is what the file of that name in a run folder holds."""
    return _fits(FORMS[name], value)


class _HeldOut(_Open):
    loss: Number
    of: Text


class _Sums(_Open):
    names: list[Text]
    values: list[float]


class _Interval(_Open):
    """What a log has of an interval that is not over."""

    steps: Annotated[int, Field(ge=0)]
    sums: list[_Sums]


class _State(_Open):
    """What state.json of a checkpoint holds."""

    step: Annotated[int, Field(ge=0, lt=2**63)]
    columns: dict[str, Annotated[list[Annotated[int, Field(ge=1, lt=2**31)]], Field(max_length=8)]] = {}
    fingerprint: Text = ""
    world: Annotated[int, Field(ge=1)] = 1
    bad: Annotated[int, Field(ge=0, lt=2**63)] = 0
    skipped: Annotated[int, Field(ge=0, lt=2**63)] = 0
    in_a_row: Annotated[int, Field(ge=0, lt=2**63)] = 0
    held_out: _HeldOut | None = None
    interval: _Interval | None = None


def is_state(value: Any) -> bool:
    """Whether this is the state of a checkpoint that a run can go on from."""
    return _fits(_State, value)


def _fits(model: type[BaseModel], value: Any) -> bool:
    try:
        model.model_validate(value)
    except (ValidationError, RecursionError):
        return False
    return True
