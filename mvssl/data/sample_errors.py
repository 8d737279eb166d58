"""The errors of one sample, and the record of a bad sample."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from mvssl.errors import DataError
from mvssl.text import printable


class SampleError(DataError):
    """One sample cannot be used. `column` is the column at fault. `reason` states the cause and how to repair it."""

    def __init__(self, reason: str, column: str = "", where: str = ""):
        self.reason, self.column = printable(reason), column
        super().__init__(printable(f"{where}{': ' if where else ''}{column}{': ' if column else ''}{reason}"))


class NoValueError(SampleError):
    """The field exists, but it holds nothing, or null, at the column's path."""


class UnnamedTextError(SampleError):
    """The field holds text, and its column has no `names` that map a text to a class number."""

    def __init__(self, reason: str, column: str = "", where: str = "", texts: tuple[str, ...] = ()):
        super().__init__(reason, column, where)
        self.texts = texts


class ReadError(SampleError):
    """The disk or the network failed. The sample may be readable later, so the run ends with code 74."""


class ShardGoneError(ReadError):
    """The shard was deleted. Training treats its samples as bad samples."""


class PartialDecodeError(SampleError):
    """The bytes are intact, but only some frames, bits, bands or pages could be kept."""


class BadSample(NamedTuple):
    """The record of one sample that could not be used."""

    position: int  # its place in the run
    key: str
    shard: str
    column: str
    reason: str
    substitute: str  # key of the sample that took its place; empty if none did


@contextmanager
def as_sample_errors(kind: str, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn exceptions of decoders on damaged bytes of `kind` into `SampleError`, but not those of `passing`."""
    try:
        yield
    except (SampleError, *passing):
        raise
    except Exception as error:
        raise SampleError(f"no readable {kind}: {error or type(error).__name__}") from None


def refuse_larger(size: int, limit: int, what: str = "bytes") -> None:
    """Raise `SampleError` if `size` is above `limit`."""
    if size > limit:
        raise SampleError(f"{size:,} {what}; the limit is {limit:,}")
