"""Folders of files as a source of `pack`.

    images/class/*.jpg       field jpg and cls, classes.txt       images/*.jpg          field jpg, no labels
    (wav and npy files likewise)
    scenes/sensor/stem.ext   field sensor.ext, paired by stem     any of them under train/, val/ and test/

File names show whether folders inside a folder are classes or sensors: sensors of one scene share them. Every file is
packed, or left out with a reason that the log has.
"""

from collections import Counter
from itertools import combinations
from pathlib import Path
from shlex import quote

from mvssl.data.decoding import extension
from mvssl.data.packing.class_folders import open_class_folders
from mvssl.data.packing.folder_tree import Folder, walk_folder
from mvssl.data.packing.sensor_folders import open_sensor_folders
from mvssl.data.packing.source import PackLog, PackSource
from mvssl.data.packing.source_files import PICTURES, READABLE
from mvssl.errors import RecipeError
from mvssl.text import printable

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def open_folder(path: Path, kind: str | None = None) -> PackSource:
    """Return the images, classes or paired sensors below `path`. `kind` "classes" or "pairs" says which it is.

    Raises `DataError` where there is nothing to pack or a part of it would be lost, `RecipeError` where it could be
    either.
    """
    log = PackLog(path)
    splits = _find_splits(walk_folder(path, log), log)
    kind = kind or next((found for part in splits.values() if (found := _guess_kind(path, part)) != "flat"), "flat")
    return open_sensor_folders(splits, log) if kind == "pairs" else open_class_folders(splits, log)


def _find_splits(root: Folder, log: PackLog) -> dict[str, Folder]:
    """Return the folder of each split; files beside them are left out. Raises `RecipeError` where it is a guess."""
    named: dict[str, list[Folder]] = {}
    for below in root.folders:
        named.setdefault(_SPLITS.get(below.path.name.lower(), ""), []).append(below)
    others = named.pop("", [])
    twice = next((folders for folders in named.values() if len(folders) > 1), None)
    if "train" not in named:
        if named and not others and not any(map(_is_readable, root.files)):
            names = ", ".join(below.path.name for folders in named.values() for below in folders)
            raise RecipeError(
                f"{root.path} holds {names} and no train folder; name the one to train on train, or give mvssl pack "
                "that folder alone"
            )
        return {"train": root}
    if twice:
        names = " and ".join(below.path.name for below in twice)
        raise RecipeError(f"{root.path} holds {names}, which name the same split; put them into one folder")
    beside = next((below for below in others if any(map(_is_readable, below.all_files()))), None)
    if beside is not None and len(named) == 1:
        raise RecipeError(
            f"{root.path}: is train the training split, or a class beside {printable(beside.path.name)}? Move the "
            "other folders away, or put all of them into one folder named train"
        )
    for file in (*root.files, *(file for below in others for file in below.all_files())):
        log.leave_out(file, "beside the folders of the splits")
    splits = {split: named[split][0] for split in ("train", "val", "test") if split in named}
    if "val" not in splits and "test" in splits:
        splits["val"] = splits.pop("test")
        log.add_note(f"{splits['val'].path.name}/ is packed as val/, as the source has no other held-out split")
    return splits


def _is_readable(file: Path) -> bool:
    return extension(file.name) in READABLE


def _guess_kind(path: Path, part: Folder) -> str:
    """Return "flat", "classes" or "pairs". Raises `RecipeError` where the names could mean either of the latter."""
    below = [one for one in part.folders if one.files or any(map(_is_readable, one.all_files()))]
    if not below:
        return "flat"
    listed = [_main_files(one.files) for one in below]  # so that a stray notes.txt makes no sensor of a class folder
    counts = Counter(stem for one in listed for stem in one)
    shared = [(len(one), {stem for stem in one if counts[stem] > 1}) for one in listed]
    # so that a README in two class folders makes no pairs of them
    overlaps = ((len(one & two), min(n, m)) for (n, one), (m, two) in combinations(shared, 2))
    if not any(common * 2 >= fewer > 0 for common, fewer in overlaps):
        return "classes"
    kinds = {tuple(sorted(set(one.values()))) for one in listed}
    if any(suffix not in PICTURES for one in listed for suffix in one.values()) or len(kinds) > 1:
        return "pairs"
    if all(set(one) == set(listed[0]) for one in listed):
        names = ", ".join(printable(one.path.name) for one in below[:4])
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
