"""What can be wrong with one sample, and the record that is kept of it."""

from typing import NamedTuple

from mvssl.errors import DataError
from mvssl.text import printable


class SampleError(DataError):
    """A sample cannot be used: `column` is where, `reason` is why, and what would mend it."""

    def __init__(self, reason: str, column: str = "", where: str = ""):
        self.reason, self.column = printable(reason), column
        super().__init__(printable(f"{where}{': ' if where else ''}{column}{': ' if column else ''}{reason}"))


class Absent(SampleError):
    """The field is there, and what the column's path names in it is not: nothing stands there, or null."""


class Unnamed(SampleError):
    """The field is text, and its column has no `names` that say which class a text stands for."""

    def __init__(self, reason: str, column: str = "", where: str = "", texts: tuple[str, ...] = ()):
        super().__init__(reason, column, where)
        self.texts = texts


class Unreadable(SampleError):
    """The disk or the network failed, not the sample: another time it may be read. It ends a run, with code 74."""


class Vanished(Unreadable):
    """The shard is no longer there, which training survives as it survives a bad sample."""


class Partial(SampleError):
    """The bytes are sound, and only a part of what they hold could be kept: frames, bits, bands or pages."""


class BadSample(NamedTuple):
    """One sample that could not be used, as the ledger keeps it."""

    position: int  # its place in the run
    key: str
    shard: str
    column: str
    reason: str
    substitute: str  # key of the sample that took its place; empty where none did
