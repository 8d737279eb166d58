"""Folders of files as material for `pack`.

    images/class/*.jpg       field jpg and cls, classes.txt       images/*.jpg          field jpg, no labels
    (wav and npy files likewise)
    scenes/sensor/stem.ext   field sensor.ext, paired by stem     any of them under train/, val/ and test/

Whether folders inside a folder are classes or sensors shows in their file names: sensors of one scene share them.
Every file is packed or goes to the account with the reason; see `mvssl.data.packing.survey`.
"""

from collections import Counter
from itertools import combinations
from pathlib import Path
from shlex import quote

from mvssl.data.decoding.file_types import extension
from mvssl.data.packing.class_folders import class_material
from mvssl.data.packing.items import PICTURES, READABLE
from mvssl.data.packing.sensor_folders import paired_material
from mvssl.data.packing.sources import Material
from mvssl.data.packing.survey import Account, Folder, walk
from mvssl.errors import RecipeError
from mvssl.text import printable

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def folder(path: Path, kind: str | None = None) -> Material:
    """Images, classes or paired sensors below `path`; `kind` "classes" or "pairs" settles what it is.

    Raises `DataError` where there is nothing to pack or some of it would be lost, `RecipeError` where it could be
    either.
    """
    account = Account(path)
    parts = _splits(walk(path, account), account)
    kind = kind or next((guess for part in parts.values() if (guess := _guess(path, part)) != "flat"), "flat")
    return paired_material(parts, account) if kind == "pairs" else class_material(parts, account)


def _splits(whole: Folder, account: Account) -> dict[str, Folder]:
    """The folder of each split; what stands beside them is left out. Raises `RecipeError` where that is a guess."""
    named: dict[str, list[Folder]] = {}
    for below in whole.folders:
        named.setdefault(_SPLITS.get(below.path.name.lower(), ""), []).append(below)
    others = named.pop("", [])
    twice = next((folders for folders in named.values() if len(folders) > 1), None)
    if "train" not in named:
        if named and not others and not any(map(_readable, whole.files)):
            names = ", ".join(below.path.name for folders in named.values() for below in folders)
            raise RecipeError(
                f"{whole.path} holds {names} and no train folder; name the one to train on train, or give mvssl pack "
                "that folder alone"
            )
        return {"train": whole}
    if twice:
        names = " and ".join(below.path.name for below in twice)
        raise RecipeError(f"{whole.path} holds {names}, which name the same split; put them into one folder")
    beside = next((below for below in others if any(map(_readable, below.all_files()))), None)
    if beside is not None and len(named) == 1:
        raise RecipeError(
            f"{whole.path}: is train the training split, or a class beside {printable(beside.path.name)}? Move the "
            "other folders away, or put all of them into one folder named train"
        )
    for file in (*whole.files, *(file for below in others for file in below.all_files())):
        account.leave(file, "beside the folders of the splits")
    parts = {split: named[split][0] for split in ("train", "val", "test") if split in named}
    if "val" not in parts and "test" in parts:
        parts["val"] = parts.pop("test")
        account.note(f"{parts['val'].path.name}/ is packed as val/, as the source has no other held-out split")
    return parts


def _readable(file: Path) -> bool:
    return extension(file.name) in READABLE


def _most_common_kind(files: list[Path]) -> dict[str, str]:
    """Stem -> ending of the files with the ending that most of them have."""
    endings = Counter(extension(file.name) for file in files)
    main = endings.most_common(1)[0][0] if endings else ""
    return {file.stem: main for file in files if extension(file.name) == main}


def _guess(path: Path, part: Folder) -> str:
    below = [one for one in part.folders if one.files or any(map(_readable, one.all_files()))]
    if not below:
        return "flat"
    listed = [
        _most_common_kind(one.files) for one in below
    ]  # a stray notes.txt in a class folder makes no sensor of it
    counts = Counter(stem for one in listed for stem in one)
    shared = [(len(one), {stem for stem in one if counts[stem] > 1}) for one in listed]
    # a README in two class folders makes no pairs of them
    alike = ((len(one & two), min(n, m)) for (n, one), (m, two) in combinations(shared, 2))
    if not any(both * 2 >= fewer > 0 for both, fewer in alike):
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
