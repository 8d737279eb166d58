"""Check state.json of a checkpoint: whether a run can continue from it.

in   the value of the JSON file
out  whether it is valid; never an exception
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e300, le=1e300)]
Text = Annotated[str, Field(strict=True)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Size = Annotated[int, Field(ge=1, lt=2**31)]


class OpenTable(BaseModel):
    """A JSON object that may have further keys with any values."""

    model_config = ConfigDict(extra="allow", strict=True)


def is_valid(model: type[BaseModel], value: Any) -> bool:
    """Return whether the model accepts a value of JSON."""
    try:
        model.model_validate(value)
    except (ValidationError, RecursionError):
        return False
    return True


class _HeldOut(OpenTable):
    """The held-out loss of the step, and which samples and schedules it was measured with."""

    loss: Number
    of: Text


class _Sums(OpenTable):
    """Metrics, summed over the steps of an interval."""

    names: list[Text]
    values: list[float]


class _Interval(OpenTable):
    """The sums of a log interval that is not complete."""

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
    """Return whether this is the state of a checkpoint from which a run can continue."""
    return is_valid(_State, value)
