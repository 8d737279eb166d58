"""Folders of files as an input of `pack`.

    images/class/*.jpg       field jpg and cls, classes.txt       images/*.jpg          field jpg, no labels
    (wav and npy files likewise)
    scenes/sensor/stem.ext   field sensor.ext, paired by stem     any of them under train/, val/ and test/

File names show whether folders inside a folder are classes or sensors: sensors of one scene share them. Every file is
packed, or left out with a reason that the log has. Links are followed. Hidden files and folders, and those that
operating systems leave behind, are left out.
"""

import os
from collections import Counter
from itertools import combinations
from pathlib import Path
from shlex import quote

from mvssl.data.decoding.file_signatures import extension
from mvssl.data.packing.folder_samples import Folder, open_class_folders, open_sensor_folders
from mvssl.data.packing.samples import SPLIT_NAMES, PackInput, PackLog
from mvssl.data.packing.source_files import PICTURES, READABLE
from mvssl.errors import RecipeError
from mvssl.text import printable

_SYSTEM = ("__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found")


def open_folder(path: Path, kind: str = "") -> PackInput:
    """Return the images, classes or paired sensors below `path`. `kind` "classes" or "pairs" says which it is.

    Raise `DataError` if there is nothing to pack or a part of it would be lost, `RecipeError` if it could be
    either.
    """
    log = PackLog(path)
    splits = _find_splits(Folder(path, _list_files(path, log)), log)
    if kind == "classes":
        _refuse_flat_folders(path, splits)
    kind = kind or next(filter(None, (_guess_kind(path, part) for part in splits.values())), "")
    return open_sensor_folders(splits, log) if kind == "pairs" else open_class_folders(splits, log)


def _refuse_flat_folders(path: Path, splits: dict[str, Folder]) -> None:
    """Raise `RecipeError` if there are files to pack, and none is in a folder of a class."""
    files = [(file, part.path) for part in splits.values() for file in part.files if _is_readable(file)]
    if files and all(file.parent == folder for file, folder in files):
        raise RecipeError(
            f"{path} has no folder of a class; make one folder for each class, or pack the files without labels: "
            f"`mvssl pack {quote(str(path))} DEST`"
        )


def _list_files(root: Path, log: PackLog) -> list[Path]:
    """Return the files below `root` that may be packed, folder by folder in the order of names; others go to `log`."""
    files: list[Path] = []
    chains: dict[str, list[str]] = {}  # folder -> real paths of itself and the folders that lead to it

    def leave_out_folder(error: OSError) -> None:
        log.leave_out(Path(error.filename), f"folder that cannot be read: {error.strerror}")

    for folder, below, names in os.walk(root, onerror=leave_out_folder, followlinks=True):
        path, real, above = Path(folder), os.path.realpath(folder), chains.get(os.path.dirname(folder), [])
        chains[folder] = [*above, real]
        below.sort()
        reason = next(filter(None, map(_folder_reason, path.relative_to(root).parts)), "")
        if real in above:
            log.leave_out(path, "a link to a folder that holds it")
            below.clear()
            continue
        if above and not (reason or below or names):
            log.leave_out(path, "empty folder")
        for file in (path / name for name in sorted(names)):
            if own := reason or _file_reason(file):
                log.leave_out(file, own)
            else:
                files.append(file)
    return files


def _folder_reason(name: str) -> str:
    """Return why the files of a folder are left out; empty if they may be packed."""
    if name.startswith("."):
        return "in a hidden folder"
    return "in a folder that the system made" if name.lower() in _SYSTEM else ""


def _file_reason(file: Path) -> str:
    """Return why a file is left out; empty if it may be packed."""
    if file.name.startswith("."):
        return "hidden"
    try:
        if not file.is_file():
            return "a link to nothing" if file.is_symlink() and not file.exists() else "a device, pipe or socket"
        return "" if os.access(file, os.R_OK) else "cannot be read: no permission"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _find_splits(root: Folder, log: PackLog) -> dict[str, Folder]:
    """Return the folder of each split; files beside them are left out. Raise `RecipeError` if it is a guess."""
    named: dict[str, list[Folder]] = {}
    for below in root.folders():
        named.setdefault(SPLIT_NAMES.get(below.path.name.lower(), ""), []).append(below)
    others = named.pop("", [])
    if "train" not in named:
        if named and not others and not any(map(_is_readable, root.own_files())):
            names = ", ".join(below.path.name for folders in named.values() for below in folders)
            raise RecipeError(
                f"{root.path} holds {names} and no train folder; name the one to train on train, or give mvssl pack "
                "that folder alone"
            )
        return {"train": root}
    if twice := next((folders for folders in named.values() if len(folders) > 1), None):
        names = " and ".join(below.path.name for below in twice)
        raise RecipeError(f"{root.path} holds {names}, which name the same split; put them into one folder")
    beside = next((below for below in others if any(map(_is_readable, below.files))), None)
    if beside is not None and len(named) == 1:
        raise RecipeError(
            f"{root.path}: is train the training split, or a class beside {printable(beside.path.name)}? Move the "
            "other folders away, or put all of them into one folder named train"
        )
    for file in (*root.own_files(), *(file for below in others for file in below.files)):
        log.leave_out(file, "beside the folders of the splits")
    splits = {split: named[split][0] for split in ("train", "val", "test") if split in named}
    if "val" not in splits and "test" in splits:
        splits["val"] = splits.pop("test")
        log.add_note(f"{splits['val'].path.name}/ is packed as val/, as the source has no other held-out split")
    return splits


def _is_readable(file: Path) -> bool:
    return extension(file.name) in READABLE


def _guess_kind(path: Path, part: Folder) -> str:
    """Return "classes" or "pairs"; empty if there are no folders. Raise `RecipeError` if it could be either."""
    below = [folder for folder in part.folders() if folder.own_files() or any(map(_is_readable, folder.files))]
    if not below:
        return ""
    listed = [_main_files(folder.own_files()) for folder in below]
    counts = Counter(stem for files in listed for stem in files)
    shared = [(len(files), {stem for stem in files if counts[stem] > 1}) for files in listed]
    # half of the names, so that a README in two class folders makes no pairs of them
    overlaps = ((len(one & two), min(n, m)) for (n, one), (m, two) in combinations(shared, 2))
    if not any(common * 2 >= fewer > 0 for common, fewer in overlaps):
        return "classes"
    kinds = {tuple(sorted(set(files.values()))) for files in listed}
    if len(kinds) > 1 or any(ending not in PICTURES for endings in kinds for ending in endings):
        return "pairs"
    if all(set(files) == set(listed[0]) for files in listed):
        names = ", ".join(printable(folder.path.name) for folder in below[:4])
        raise RecipeError(
            f"{path}: the folders {names} share all their file names; are they sensors that saw the same scenes "
            f"(`mvssl pack {quote(f'pairs:{path}')} DEST`) or classes (`mvssl pack {quote(f'classes:{path}')} DEST`)?"
        )
    return "classes"


def _main_files(files: list[Path]) -> dict[str, str]:
    """Return stem -> ending of the files with the commonest ending."""
    endings = Counter(extension(file.name) for file in files)
    main = endings.most_common(1)[0][0] if endings else ""
    return {file.stem: main for file in files if extension(file.name) == main}
