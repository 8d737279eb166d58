"""The form of state.json, and the base of the forms of other JSON files of a run.

in   the value of a JSON file, which a kill, a person or another version may have changed
out  an object with typed members, or None if the value does not fit; never an exception
"""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e300, le=1e300)]
Text = Annotated[str, Field(strict=True)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Size = Annotated[int, Field(ge=1, lt=2**31)]


class JsonForm(BaseModel):
    """A JSON object, which may have further keys with any values."""

    model_config = ConfigDict(extra="allow", strict=True)

    @classmethod
    def parse(cls, value: Any) -> Self | None:
        """Return the object, or None if the value of JSON does not fit."""
        try:
            return cls.model_validate(value)
        except (ValidationError, RecursionError):
            return None


class HeldOutLoss(JsonForm):
    """The held-out loss of a step, and which samples and schedules it was measured with."""

    loss: Number
    of: Text


class Sums(JsonForm):
    """Metrics, summed over steps of an interval; the last value counts the steps that were not vetoed."""

    names: list[Text]
    values: list[float]


class LogSums(JsonForm):
    """The sums of a log interval that is not complete."""

    steps: Annotated[int, Field(ge=0)] = 0
    sums: list[Sums] = []


class State(JsonForm):
    """The content of state.json: the step of a checkpoint and the counts with which a run continues."""

    step: Count
    columns: dict[str, Annotated[list[Size], Field(max_length=8)]] = {}  # shape of one sample of each column
    fingerprint: Text = ""  # of the data
    world: Annotated[int, Field(ge=1)] | None = None  # processes
    bad: Count = 0
    skipped: Count = 0
    in_a_row: Count = 0
    held_out: HeldOutLoss | None = None
    interval: LogSums | None = None
