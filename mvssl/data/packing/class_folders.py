"""Folders of images, sounds or arrays as a source of `pack`, one folder per class or none.

in   the folder of each split, and the log of what is left out
out  `PackSource`: one field for all samples, as a column has one, and cls where there are classes
"""

import re
from pathlib import Path

from mvssl.data.decoding import IMAGE_FORMATS, extension
from mvssl.data.packing.folder_tree import Folder
from mvssl.data.packing.source import Fields, PackLog, PackSource, PackSplit
from mvssl.data.packing.source_files import CONVERTED, PICTURES, SourceFile, common_field, inspect_file
from mvssl.errors import DataError
from mvssl.text import printable

_ARRAYS = ("wav", "npy")  # sounds, signals and bands that stand in class folders as images do
_UNREAD = set(  # endings of data; a class folder that holds nothing else must not be left out
    re.findall(
        r"\w+",
        "heic heif psd dcm nii gz h5 hdf5 parquet mp4 avi mov mkv webm csv tsv mat mp3 flac ogg m4a aac aiff exr hdr "
        "svg dng cr2 cr3 nef arw raw jxl pfm tfrecord bag pcd ply las laz edf npz",
    )
)


def open_class_folders(splits: dict[str, Folder], log: PackLog) -> PackSource:
    """Return the files of all splits. Raises `DataError` where a split, or a class, has no file to pack."""
    found = {split: _files_by_class(part) for split, part in splits.items()}
    endings = {extension(file.name) for below in found.values() for files in below.values() for file in files}
    wanted = next((kinds for kinds in (PICTURES, _ARRAYS) if endings & set(kinds)), ())
    labelled = any(
        name and any(extension(file.name) in wanted for file in files)
        for below in found.values()
        for name, files in below.items()
    )
    items: dict[str, list[tuple[SourceFile, str]]] = {}
    for split, below in found.items():
        items[split] = []
        for name, files in below.items():
            _refuse_unread(splits[split].path / name, files, wanted)
            taken = _inspect_files(files, wanted, labelled and not name, log)
            items[split] += [(item, name) for item in taken]
    for split, taken in items.items():
        if not taken:
            _refuse_empty(splits[split].path, log)
    every = [item for taken in items.values() for item, _ in taken]
    if {item.kind for item in every} == set(_ARRAYS):
        raise DataError(f"{' and '.join(_ARRAYS)} files beside one another: pack them separately")
    field = common_field(every)
    classes = sorted({name for taken in items.values() for _, name in taken}) if labelled else []
    made = {split: _split(taken, field, classes, log) for split, taken in items.items()}
    return PackSource(made, classes or None, len(splits) > 1, log)


def _files_by_class(part: Folder) -> dict[str, list[Path]]:
    """Return the files of each folder, however deep; under an empty name, those beside the folders."""
    return {"": part.files} | {below.path.name: list(below.all_files()) for below in part.folders}


def _inspect_files(files: list[Path], wanted: tuple[str, ...], beside: bool, log: PackLog) -> list[SourceFile]:
    taken = []
    for file in files:
        ending = extension(file.name)
        if ending not in wanted:
            log.leave_out(file, "a wav or npy file beside pictures" if ending in _ARRAYS else unread_reason(file))
        elif beside:
            log.leave_out(file, "beside the class folders")
        elif (item := inspect_file(file, log)) is not None:
            taken.append(item)
    return taken


def unread_reason(file: Path) -> str:
    """Return why a file with such an ending is left out."""
    return f".{printable(extension(file.name))} files are not read here" if "." in file.name else "no ending"


def _refuse_unread(folder: Path, files: list[Path], wanted: tuple[str, ...]) -> None:
    endings = {extension(file.name) for file in files}
    lost = sorted(endings & _UNREAD)
    if lost and not endings & set(wanted):
        raise DataError(
            f"{printable(str(folder))} holds .{', .'.join(lost)} files, which are not read; convert them to png, jpg, "
            "npy or wav, or move the folder out of the source"
        )


def _refuse_empty(path: Path, log: PackLog) -> None:
    last = f"; {printable(log.left_out[-1].path)}: {log.left_out[-1].reason}" if log.left_out else ""
    accepted = ", ".join((*IMAGE_FORMATS, *CONVERTED))
    raise DataError(
        f"{printable(str(path))} holds no images ({accepted}), wav or npy files to pack, and no folders of them{last}"
    )


def _split(items: list[tuple[SourceFile, str]], field: str, classes: list[str], log: PackLog) -> PackSplit:
    number = {name: i for i, name in enumerate(classes)}

    def fields(i: int) -> Fields:
        item, name = items[i]
        content = item.content(field, log)
        if content is None:
            return {}
        return {field: content, "cls": str(number[name]).encode()} if classes else {field: content}

    labels = [number[name] for _, name in items] if classes else None
    return PackSplit(len(items), fields, labels, lambda i: str(items[i][0].file))
