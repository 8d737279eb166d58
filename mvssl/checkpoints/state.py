"""What state.json of a checkpoint must hold, so that a run can go on from it.

in   what the file holds
out  whether it can be used; never an exception
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e300, le=1e300)]
Text = Annotated[str, Field(strict=True)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Size = Annotated[int, Field(ge=1, lt=2**31)]


class OpenTable(BaseModel):
    """A JSON object whose further keys may hold anything."""

    model_config = ConfigDict(extra="allow", strict=True)


def is_valid(model: type[BaseModel], value: Any) -> bool:
    """Return whether the model accepts a value of JSON."""
    try:
        model.model_validate(value)
    except (ValidationError, RecursionError):
        return False
    return True


class _HeldOut(OpenTable):
    """The held-out loss of the step, and what it was measured on."""

    loss: Number
    of: Text


class _Sums(OpenTable):
    """Metrics, summed up over the steps of an interval."""

    names: list[Text]
    values: list[float]


class _Interval(OpenTable):
    """What a log holds of an interval that is not over."""

    steps: Annotated[int, Field(ge=0)]
    sums: list[_Sums]


class _State(OpenTable):
    """state.json."""

    step: Count
    columns: dict[str, Annotated[list[Size], Field(max_length=8)]] = {}
    fingerprint: Text = ""
    world: Annotated[int, Field(ge=1)] = 1
    bad: Count = 0
    skipped: Count = 0
    in_a_row: Count = 0
    held_out: _HeldOut | None = None
    interval: _Interval | None = None


def is_state(value: Any) -> bool:
    """Return whether this is the state of a checkpoint that a run can go on from."""
    return is_valid(_State, value)
