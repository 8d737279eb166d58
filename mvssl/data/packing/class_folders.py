"""Folders of images, sounds or arrays as material for `pack`, one folder per class or none.

in   the folder of each split, and the account of what is left out
out  `Material`: one field for all samples, as a column has one, and cls where there are classes
"""

import re
from pathlib import Path

from mvssl.data.decoding.file_types import extension
from mvssl.data.decoding.images import FORMATS
from mvssl.data.packing.items import CONVERTED, PICTURES, Item, common_field, examined, packed
from mvssl.data.packing.sources import Fields, Material, Split
from mvssl.data.packing.survey import Account, Folder
from mvssl.errors import DataError
from mvssl.text import printable

_ARRAYS = ("wav", "npy")  # sounds, signals and bands that stand in class folders as images do
_UNREAD = set(  # endings of data; a class folder that holds nothing else is no leftover
    re.findall(
        r"\w+",
        "heic heif psd dcm nii gz h5 hdf5 parquet mp4 avi mov mkv webm csv tsv mat mp3 flac ogg m4a aac aiff exr hdr "
        "svg dng cr2 cr3 nef arw raw jxl pfm tfrecord bag pcd ply las laz edf npz",
    )
)


def class_material(parts: dict[str, Folder], account: Account) -> Material:
    """Raises `DataError` where a split, or a folder that must be a class, has no file to pack."""
    found = {split: _by_class(part) for split, part in parts.items()}
    files = [file for below in found.values() for listed in below.values() for file in listed]
    wanted = next((kinds for kinds in (PICTURES, _ARRAYS) if any(extension(file.name) in kinds for file in files)), ())
    labelled = any(name and _of(listed, wanted) for below in found.values() for name, listed in below.items())
    items: dict[str, list[tuple[Item, str]]] = {split: [] for split in parts}
    for split, below in found.items():
        for name, listed in below.items():
            _refuse_unread(parts[split].path / name, listed, wanted)
            items[split] += [(item, name) for item in _taken(listed, wanted, labelled and not name, account)]
    for split, taken in items.items():
        if not taken:
            _refuse_empty(parts[split].path, account)
    every = [item for taken in items.values() for item, _ in taken]
    if {item.kind for item in every} == set(_ARRAYS):
        raise DataError(f"{' and '.join(_ARRAYS)} files beside one another: pack them apart")
    field = common_field(every)
    classes = sorted({name for taken in items.values() for _, name in taken}) if labelled else []
    splits = {split: _split(taken, field, classes, account) for split, taken in items.items()}
    return Material(splits, classes or None, len(parts) > 1, account)


def _by_class(part: Folder) -> dict[str, list[Path]]:
    """The files of each folder, however deep, and under no name those that stand beside the folders."""
    return {"": part.files} | {below.path.name: list(below.all_files()) for below in part.folders}


def _of(files: list[Path], endings: tuple[str, ...]) -> list[Path]:
    return [file for file in files if extension(file.name) in endings]


def _taken(files: list[Path], wanted: tuple[str, ...], beside: bool, account: Account) -> list[Item]:
    taken = []
    for file in files:
        ending = extension(file.name)
        if ending not in wanted:
            account.leave(file, "a wav or npy file beside pictures" if ending in _ARRAYS else unread(file))
        elif beside:
            account.leave(file, "beside the class folders")
        elif (item := examined(file, account)) is not None:
            taken.append(item)
    return taken


def unread(file: Path) -> str:
    """The reason for which a file with such an ending is left out."""
    return f".{printable(extension(file.name))} files are not read here" if "." in file.name else "no ending"


def _refuse_unread(folder: Path, files: list[Path], wanted: tuple[str, ...]) -> None:
    endings = {extension(file.name) for file in files}
    lost = sorted(endings & _UNREAD)
    if lost and not endings & set(wanted):
        raise DataError(
            f"{printable(str(folder))} holds .{', .'.join(lost)} files, which are not read; convert them to png, jpg, "
            "npy or wav, or move the folder out of the source"
        )


def _refuse_empty(path: Path, account: Account) -> None:
    last = f"; {printable(account.left_out[-1].path)}: {account.left_out[-1].reason}" if account.left_out else ""
    accepted = ", ".join((*FORMATS, *CONVERTED))
    raise DataError(
        f"{printable(str(path))} holds no images ({accepted}), wav or npy files to pack, and no folders of them{last}"
    )


def _split(items: list[tuple[Item, str]], field: str, classes: list[str], account: Account) -> Split:
    number = {name: i for i, name in enumerate(classes)}

    def fields(i: int) -> Fields:
        item, name = items[i]
        content = packed(item, field, account)
        if content is None:
            return {}
        return {field: content, "cls": str(number[name]).encode()} if classes else {field: content}

    labels = [number[name] for _, name in items] if classes else None
    return Split(len(items), fields, labels, lambda i: str(items[i][0].file))
