"""Folders of files as material for `pack`.

    images/class/*.jpg       field jpg and cls, classes.txt       images/*.jpg          field jpg, no labels
    (wav and npy files likewise)
    scenes/sensor/stem.ext   field sensor.ext, paired by stem     any of them under train/ and val/

Whether folders inside a folder are classes or sensors shows in their file names: sensors of one scene share them.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from mvssl.data.decode import DECODERS, extension
from mvssl.data.sources import Fields, Material, Split, field_name, npy_bytes, png_bytes
from mvssl.errors import DataError, RecipeError

IMAGES = ("jpg", "jpeg", "png", "webp")
ARRAYS = ("wav", "npy")  # sounds, signals and bands that stand in class folders as images do
CONVERTED = ("bmp", "gif", "ppm", "pgm", "pbm", "tif", "tiff")  # rewritten without loss
_VAL = ("val", "valid", "validation", "test")


def folder(path: Path, kind: str | None = None) -> Material:
    """Images, classes or paired sensors below `path`; `kind` "classes" or "pairs" settles what it is.

    Raises `DataError` where there is nothing to pack, `RecipeError` where it could be either.
    """
    val = next((path / name for name in _VAL if (path / name).is_dir()), None)
    parts = {"train": path / "train", "val": val} if (path / "train").is_dir() else {"train": path}
    inside = {split: _subfolders(part) for split, part in parts.items() if part is not None}
    kind = kind or next((guess for below in inside.values() if (guess := _guess(path, below)) != "flat"), "flat")
    if kind == "pairs":
        return Material({split: _pairs(below) for split, below in inside.items()}, fixed=len(inside) > 1)
    classes = sorted({one.name for below in inside.values() for one in below}) if kind == "classes" else []
    files = {}
    for wanted in (_is_image, _is_array):  # arrays beside images are something else
        if not any(files.values()):
            files = {split: _labelled(parts[split], below, classes, wanted) for split, below in inside.items()}  # pyright: ignore[reportArgumentType]
    empty = [str(parts[split]) for split, listed in files.items() if not listed]
    if empty:
        accepted = ", ".join((*IMAGES, *CONVERTED))
        raise DataError(f"{empty[0]} holds no images ({accepted}), wav or npy files, and no folders of them")
    field = _common_field([file for listed in files.values() for file, _ in listed])
    return Material(
        {split: _images(listed, field, bool(classes)) for split, listed in files.items()},
        classes or None,
        len(files) > 1,
    )


def _subfolders(part: Path) -> list[Path]:
    return sorted(inside for inside in part.iterdir() if inside.is_dir() and not inside.name.startswith("."))


def _listed(part: Path, deep: bool) -> list[Path]:
    files = part.rglob("*") if deep else part.iterdir()
    return sorted(file for file in files if file.is_file() and not file.name.startswith("."))


def _is_image(file: Path) -> bool:
    return extension(file.name) in (*IMAGES, *CONVERTED)


def _is_array(file: Path) -> bool:
    return extension(file.name) in ARRAYS


def _guess(path: Path, below: list[Path]) -> str:
    if not below:
        return "flat"
    listed = [{file.stem: extension(file.name) for file in _listed(one, deep=False)} for one in below]
    shared = [set(one) & set(two) for one in listed for two in listed if one is not two]
    if len(below) < 2 or not any(shared):
        return "classes"
    kinds = {tuple(sorted(set(one.values()))) for one in listed}
    if any(suffix not in (*IMAGES, *CONVERTED) for one in listed for suffix in one.values()) or len(kinds) > 1:
        return "pairs"
    if all(set(one) == set(listed[0]) for one in listed):
        names = ", ".join(one.name for one in below[:4])
        raise RecipeError(
            f"{path}: the folders {names} share all their file names; are they sensors that saw the same scenes "
            f"(`mvssl pack pairs:{path} DEST`) or classes (`mvssl pack classes:{path} DEST`)?"
        )
    return "classes"


def _labelled(
    part: Path, below: list[Path], classes: list[str], wanted: Callable[[Path], bool]
) -> list[tuple[Path, int]]:
    if not classes:
        return [(file, -1) for file in _listed(part, deep=False) if wanted(file)]
    number = {name: i for i, name in enumerate(classes)}
    return [(file, number[one.name]) for one in below for file in _listed(one, deep=True) if wanted(file)]


def _common_field(files: list[Path]) -> str:
    """One field for all samples, as a column has one: the files' own if they agree, else png."""
    suffixes = {extension(file.name).replace("jpeg", "jpg") for file in files}
    if set(ARRAYS) <= suffixes:
        raise DataError(f"{' and '.join(ARRAYS)} files beside one another: pack them apart")
    return suffixes.pop() if len(suffixes) == 1 and suffixes <= {*IMAGES, *ARRAYS} else "png"


def _images(listed: list[tuple[Path, int]], field: str, labelled: bool) -> Split:
    def fields(i: int) -> Fields:
        file, label = listed[i]
        name, content = as_field(file, field)
        return {name: content, "cls": str(label).encode()} if labelled else {name: content}

    return Split(len(listed), fields, [label for _, label in listed] if labelled else None, lambda i: str(listed[i][0]))


def as_field(file: Path, field: str | None = None) -> tuple[str, bytes]:
    """A file as it goes into a shard: its own bytes, or for other formats a png (npy where a png would lose bits)."""
    own = extension(file.name).replace("jpeg", "jpg")
    if own in DECODERS and field in (None, own):
        return own, file.read_bytes()
    try:
        with Image.open(file) as image:
            if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
                return "npy", npy_bytes(np.asarray(image)[None])
            return "png", png_bytes(image if image.mode in ("L", "RGB", "RGBA", "LA", "P") else image.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} cannot be read as an image: {error}") from None


def _pairs(below: list[Path]) -> Split:
    scenes: dict[str, dict[str, Path]] = {}
    for sensor in below:
        for file in _listed(sensor, deep=False):
            if _is_image(file) or extension(file.name) in DECODERS:
                name = field_name(sensor.name)
                if name in scenes.setdefault(file.stem, {}):
                    raise DataError(f"{sensor} has several files for {file.stem!r}: {file.name} and another")
                scenes[file.stem][name] = file
    if not scenes:
        raise DataError(
            f"{os.path.commonpath(below) if below else 'the source'} holds no sensor folders with files to pair"
        )
    listed = sorted(scenes.items())

    def fields(i: int) -> Fields:
        found = {sensor: as_field(file) for sensor, file in listed[i][1].items()}
        return {f"{sensor}.{suffix}": content for sensor, (suffix, content) in found.items()}

    return Split(len(listed), fields, name=lambda i: listed[i][0])
