"""Every file below a source, and what became of it.

in   a folder
out  `Folder`: its files and folders that may hold samples; `Account`: each file that is left out, with the reason

Links are followed. Hidden files and folders, and those that systems leave behind, are left out, file by file.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_SYSTEM = ("__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found")


class LeftOut(NamedTuple):
    path: str  # below the source, or the name of an array
    reason: str


class Account:
    """What is left out of a pack, and what its user has to know beside."""

    def __init__(self, root: Path | None = None):
        self.root = root
        self.left_out: list[LeftOut] = []
        self.lacking: list[LeftOut] = []  # what no file is there for: a sample that lacks a sensor
        self._notes: dict[str, tuple[int, str]] = {}

    def leave(self, path: Path, reason: str) -> None:
        self.left_out.append(LeftOut(self._below(path), reason))

    def lack(self, path: Path, reason: str) -> None:
        self.lacking.append(LeftOut(self._below(path), reason))

    def note(self, text: str, path: Path | None = None) -> None:
        """`text` is told once for all files that it holds for, with the first as an example."""
        count, first = self._notes.get(text, (0, "" if path is None else self._below(path)))
        self._notes[text] = count + 1, first

    @property
    def notes(self) -> list[str]:
        return [text if not file else f"{text} ({count:,}: {file})" for text, (count, file) in self._notes.items()]

    def _below(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix() if self.root else str(path)


class Folder(NamedTuple):
    path: Path
    files: list[Path]
    folders: "list[Folder]"

    def all_files(self) -> Iterator[Path]:
        """Its files and those of the folders below."""
        yield from self.files
        for folder in self.folders:
            yield from folder.all_files()


def walk(path: Path, account: Account, above: tuple[str, ...] = (), why: str = "") -> Folder:
    """What may be packed below `path`, in the order of names; all else goes to `account`.

    `why` is the reason for which every file is left out; `above` are the real paths of the folders that lead here.
    """
    real = os.path.realpath(path)
    files, folders = [], []
    try:
        if real in above:
            account.leave(path, "a link to a folder that holds it")
            return Folder(path, [], [])
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        account.leave(path, f"folder that cannot be read: {error.strerror}")
        return Folder(path, [], [])
    for entry in entries:
        place = path / entry.name
        if entry.is_dir():
            below = walk(place, account, (*above, real), why or _reason_for_folder(entry.name))
            if below.files or below.folders:
                folders.append(below)
            continue
        reason = why or _reason_for_file(place, entry)
        if reason:
            account.leave(place, reason)
        else:
            files.append(place)
    if above and not why and not entries:
        account.leave(path, "empty folder")
    return Folder(path, files, folders)


def _reason_for_folder(name: str) -> str:
    if name.startswith("."):
        return "in a hidden folder"
    return "in a folder that the system made" if name.lower() in _SYSTEM else ""


def _reason_for_file(place: Path, entry: os.DirEntry) -> str:
    if entry.name.startswith("."):
        return "hidden"
    try:
        if not entry.is_file():
            return "a link to nothing" if entry.is_symlink() and not place.exists() else "a device, pipe or socket"
        return "" if os.access(place, os.R_OK) else "cannot be read: no permission"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
