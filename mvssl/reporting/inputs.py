"""What the sections of a report are computed from: the files of the run, some encoded samples, the training shards.

in   a run folder, how many samples to encode, and a checkpoint
out  `Inputs`; for samples or shards that cannot be opened it has the reason
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from mvssl.data import ShardSource, open_shards
from mvssl.errors import DataError, MvsslError
from mvssl.reporting.run_files import RunFiles
from mvssl.reporting.samples import EncodedSamples, encode_samples

LEFT_OUT = "left out on request; without --samples 0 it is drawn"
T = TypeVar("T")


class Opened(NamedTuple, Generic[T]):
    """Something that could be opened, or the reason why there is none."""

    value: T | None
    why: str = ""

    @classmethod
    def open(cls, work: Callable[[], T]) -> "Opened[T]":
        try:
            return cls(work())
        except MvsslError as error:
            return cls(None, str(error))

    def get(self) -> T:
        """Return the value. Raise `DataError` with the reason if there is none."""
        if self.value is None:
            raise DataError(self.why)
        return self.value


class Inputs(NamedTuple):
    """What sections read. A section raises `MvsslError` if its part is missing; the message becomes its reason."""

    facts: RunFiles
    encoded: Opened[EncodedSamples]
    training: Opened[ShardSource]


def open_inputs(facts: RunFiles, samples: int, checkpoint: str, trust: list[str]) -> Inputs:
    """Encode `samples` samples and open the shards. Raise `MvsslError` only for a checkpoint that was asked for."""
    if not samples:
        return Inputs(facts, Opened(None, LEFT_OUT), Opened(None, LEFT_OUT))

    def encode() -> EncodedSamples:
        return encode_samples(facts.folder, trust, samples, checkpoint)

    def open_training() -> ShardSource:
        data = facts.recipe.data
        return open_shards(data.train, data.folder, data.columns, missing=data.missing, progress=False)

    # without the last checkpoint, the other sections are still useful
    encoded = Opened.open(encode) if checkpoint == "last" else Opened(encode())
    return Inputs(facts, encoded, Opened.open(open_training))
