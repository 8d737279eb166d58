"""Check the JSON files of a run folder: a kill, a person or another version may have changed them.

in   the value of a JSON file, or of one of its lines
out  whether it is valid; never an exception
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

from mvssl.checkpoints.state import Number, OpenTable, Text, is_valid


def step_of_line(line: Any) -> int | None:
    """Return the step of a line of metrics, or None if it has none."""
    step = line.get("step") if isinstance(line, dict) else None
    return step if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**63 else None


def is_value(value: Any) -> bool:
    """Return whether this is null or a number that can be plotted; integers of JSON may exceed every float."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300)


class _Finding(OpenTable):
    what: Text | None = None
    view: Text | None = None
    value: Number | None = None
    threshold: Number | None = None
    sentence: Text | None = None
    advice: Text | None = None


class _Verdict(OpenTable):
    """verdict.json."""

    step: int | None = None
    verdict: Text | None = None
    summary: Text | None = None
    findings: list[_Finding] | None = None


class _Exit(OpenTable):
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
    """Return whether the value is valid for the file of that name in a run folder."""
    return is_valid(FORMS[name], value)
