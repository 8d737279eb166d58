"""The contract between an input of `pack` and the writer of shards, and the account of what is left out.

in   samples of any input, as functions that return the bytes of their fields
out  `PackInput`: the samples of each split, the names of the classes, and the log
"""

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

Fields = dict[str, bytes]  # field -> content

SPLIT_NAMES = {  # of folders and arrays -> split
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


class PackSplit(NamedTuple):
    """The samples of one split. `fields(i)` returns those of the i-th, or nothing if it cannot be used."""

    count: int
    fields: Callable[[int], Fields]
    labels: Sequence[int] | np.ndarray | None = None  # classes to keep in proportion when the split is divided
    name: Callable[[int], str] | None = None  # where the i-th sample came from


class LeftOut(NamedTuple):
    path: str  # below the input, or the name of an array
    reason: str


class PackLog:
    """What is left out of a pack, and what its user has to know. Paths are kept relative to `root`."""

    def __init__(self, root: Path | None = None):
        self.root = root
        self.left_out: list[LeftOut] = []
        self.lacking: list[LeftOut] = []  # absent files: a sample that lacks a sensor
        self._notes: dict[str, tuple[int, str]] = {}

    def leave_out(self, path: Path, reason: str) -> None:
        """Record a file that is not packed."""
        self.left_out.append(LeftOut(self._relative(path), reason))

    def add_lacking(self, path: Path, reason: str) -> None:
        """Record an absent file of a sample that is packed without it."""
        self.lacking.append(LeftOut(self._relative(path), reason))

    def add_note(self, text: str, path: Path | None = None) -> None:
        """Record a note. Equal notes are shown once, with their number and the first file."""
        count, first = self._notes.get(text, (0, "" if path is None else self._relative(path)))
        self._notes[text] = count + 1, first

    @property
    def notes(self) -> list[str]:
        return [text if not file else f"{text} ({count:,}: {file})" for text, (count, file) in self._notes.items()]

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if self.root else str(path)


class PackInput(NamedTuple):
    """The samples that an input holds. If there is no split but train, a part of it becomes val."""

    splits: dict[str, PackSplit]
    classes: list[str] | None  # names in the order of their numbers
    log: PackLog


def png_bytes(image: Image.Image) -> bytes:
    """Return the image as a PNG, without loss."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def field_name(name: str) -> str:
    """Return `name` as the first part of a field: lower case, `_` for characters that separate keys or endings."""
    return re.sub(r"[./\\;\x00-\x1f\x7f]", "_", name).lower()
