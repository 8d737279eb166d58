"""Every file below a folder that is packed.

in   a folder
out  `Folder`: its files and folders that may hold samples; `PackLog` has each file that is left out, with the reason

Links are followed. Hidden files and folders, and those that operating systems leave behind, are left out.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mvssl.data.packing.source import PackLog

_SYSTEM = ("__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found")


class Folder(NamedTuple):
    path: Path
    files: list[Path]
    folders: "list[Folder]"

    def all_files(self) -> Iterator[Path]:
        """Yield its files and those of the folders below."""
        yield from self.files
        for folder in self.folders:
            yield from folder.all_files()


def walk_folder(path: Path, log: PackLog, above: tuple[str, ...] = (), reason: str = "") -> Folder:
    """Return what may be packed below `path`, in the order of names; all else goes to `log`.

    `reason` is why every file is left out, if so; `above` are the real paths of the folders that lead here.
    """
    real = os.path.realpath(path)
    files, folders = [], []
    try:
        if real in above:
            log.leave_out(path, "a link to a folder that holds it")
            return Folder(path, [], [])
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError as error:
        log.leave_out(path, f"folder that cannot be read: {error.strerror}")
        return Folder(path, [], [])
    for entry in entries:
        place = path / entry.name
        if entry.is_dir():
            below = walk_folder(place, log, (*above, real), reason or _folder_reason(entry.name))
            if below.files or below.folders:
                folders.append(below)
        elif own := reason or _file_reason(place, entry):
            log.leave_out(place, own)
        else:
            files.append(place)
    if above and not reason and not entries:
        log.leave_out(path, "empty folder")
    return Folder(path, files, folders)


def _folder_reason(name: str) -> str:
    if name.startswith("."):
        return "in a hidden folder"
    return "in a folder that the system made" if name.lower() in _SYSTEM else ""


def _file_reason(place: Path, entry: os.DirEntry) -> str:
    if entry.name.startswith("."):
        return "hidden"
    try:
        if not entry.is_file():
            return "a link to nothing" if entry.is_symlink() and not place.exists() else "a device, pipe or socket"
        return "" if os.access(place, os.R_OK) else "cannot be read: no permission"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
