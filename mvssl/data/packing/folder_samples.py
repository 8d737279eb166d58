"""The samples of class folders, and of one folder per sensor.

in   the folder of each split, and the log of what is left out
out  `PackInput`. Classes give one field for all samples, and cls. Sensors give the field SENSOR.ENDING each; a sample
     may lack some, which the log has
"""

from pathlib import Path
from typing import NamedTuple

from mvssl.data.decoding.fields import FIELD_FORMATS
from mvssl.data.decoding.file_signatures import extension
from mvssl.data.decoding.images import IMAGE_FORMATS
from mvssl.data.packing.samples import Fields, PackInput, PackLog, PackSplit, field_name
from mvssl.data.packing.source_files import (
    CONVERTED,
    PICTURES,
    READABLE,
    SourceFile,
    common_field,
    inspect_file,
)
from mvssl.errors import DataError
from mvssl.text import counted, printable

_ARRAYS = ("wav", "npy")  # sounds, signals and bands that stand in class folders as images do
_UNREAD = (  # endings of data; a class folder that holds nothing else must not be left out
    "heic heif psd dcm nii gz h5 hdf5 parquet mp4 avi mov mkv webm csv tsv mat mp3 flac ogg m4a aac aiff exr hdr svg "
    "dng cr2 cr3 nef arw raw jxl pfm tfrecord bag pcd ply las laz edf npz"
)


class Folder(NamedTuple):
    path: Path
    files: list[Path]  # however deep

    def own_files(self) -> list[Path]:
        """Return the files that lie in the folder itself."""
        return [file for file in self.files if file.parent == self.path]

    def folders(self) -> "list[Folder]":
        """Return the folders that lie in it and have files."""
        depth, found = len(self.path.parts), {}
        for file in self.files:
            if len(file.parts) > depth + 1:
                found.setdefault(file.parts[depth], []).append(file)
        return [Folder(self.path / name, files) for name, files in found.items()]


def open_class_folders(splits: dict[str, Folder], log: PackLog) -> PackInput:
    """Return the files of all splits. Raise `DataError` if a split, or a class, has no file to pack."""
    listed = {  # split -> class -> its files, however deep; those beside the folders have an empty class
        split: {"": part.own_files()} | {below.path.name: below.files for below in part.folders()}
        for split, part in splits.items()
    }
    endings = {extension(file.name) for classes in listed.values() for files in classes.values() for file in files}
    wanted = next((kinds for kinds in (PICTURES, _ARRAYS) if endings & set(kinds)), ())
    labelled = any(
        name and any(extension(file.name) in wanted for file in files)
        for classes in listed.values()
        for name, files in classes.items()
    )
    items: dict[str, list[tuple[SourceFile, str]]] = {split: [] for split in splits}
    for split, classes in listed.items():
        for name, files in classes.items():
            endings = {extension(file.name) for file in files}
            unread = sorted(endings & set(_UNREAD.split()))
            if unread and not endings & set(wanted):
                raise DataError(
                    f"{printable(str(splits[split].path / name))} holds .{', .'.join(unread)} files, which are not "
                    "read; convert them to png, jpg, npy or wav, or move the folder out of the source"
                )
            for file in files:
                if labelled and not name and extension(file.name) in wanted:
                    log.leave_out(file, "beside the class folders")
                elif (item := inspect_file(file, wanted, log)) is not None:
                    items[split].append((item, name))
    for split, packed in items.items():
        if not packed:
            last = f"; {printable(log.left_out[-1].path)}: {log.left_out[-1].reason}" if log.left_out else ""
            raise DataError(
                f"{printable(str(splits[split].path))} holds no images ({', '.join((*IMAGE_FORMATS, *CONVERTED))}), "
                f"wav or npy files to pack, and no folders of them{last}"
            )
    every = [item for packed in items.values() for item, _ in packed]
    if {item.kind for item in every} == set(_ARRAYS):
        raise DataError(f"{' and '.join(_ARRAYS)} files beside one another: pack them separately")
    field = common_field(every)
    names = sorted({name for packed in items.values() for _, name in packed}) if labelled else []
    made = {split: _class_split(packed, field, names, log) for split, packed in items.items()}
    return PackInput(made, names or None, log)


def _class_split(items: list[tuple[SourceFile, str]], field: str, classes: list[str], log: PackLog) -> PackSplit:
    number = {name: i for i, name in enumerate(classes)}
    numbers = [number[name] for _, name in items] if classes else None

    def fields(i: int) -> Fields:
        content = items[i][0].content(field, log)
        if content is None:
            return {}
        return {field: content, "cls": str(numbers[i]).encode()} if numbers else {field: content}

    return PackSplit(len(items), fields, numbers, lambda i: str(items[i][0].file))


def open_sensor_folders(splits: dict[str, Folder], log: PackLog) -> PackInput:
    """Return the samples of all splits, paired by stem.

    Raise `DataError` if a sensor has no file that is read or two files of one stem, no sample is complete, or the
    splits differ in their fields.
    """
    scenes = {split: _pair_files(part, log) for split, part in splits.items()}
    files: dict[str, list[SourceFile]] = {}  # of each sensor
    for found in scenes.values():
        for scene in found.values():
            for sensor, item in scene.items():
                files.setdefault(sensor, []).append(item)
    common = {  # one ending for all pictures of a sensor; other files keep their own
        sensor: common_field(items)
        for sensor, items in files.items()
        if all(extension(item.file.name) in PICTURES for item in items)
    }

    def field(sensor: str, item: SourceFile) -> str:
        return f"{sensor}.{common.get(sensor) or (item.kind if item.kind in FIELD_FORMATS else item.field)}"

    paired = {
        split: [
            (stem, {field(sensor, item): item for sensor, item in scene.items()})
            for stem, scene in sorted(found.items())
        ]
        for split, found in scenes.items()
    }
    fields = {split: {name for _, scene in listed for name in scene} for split, listed in paired.items()}
    for split, names in fields.items():
        if names != fields["train"]:
            raise DataError(
                f"train has the fields {', '.join(sorted(fields['train']))}, and {split} has "
                f"{', '.join(sorted(names))}; every split needs the same. Complete it, or move what one of them lacks "
                "out of the source"
            )
    return PackInput({split: _sensor_split(listed, log) for split, listed in paired.items()}, None, log)


def _pair_files(part: Folder, log: PackLog) -> dict[str, dict[str, SourceFile]]:
    """Return the files of each stem by their sensor. Raise `DataError`."""
    for file in part.own_files():
        log.leave_out(file, "beside the sensor folders")
    scenes: dict[str, dict[str, SourceFile]] = {}
    folders: dict[str, Path] = {}
    for sensor in part.folders():
        name = field_name(sensor.path.name)
        if name in folders:
            raise DataError(f"{folders[name]} and {sensor.path} would both be the sensor {name!r}; rename one")
        folders[name] = sensor.path
        for stem, item in _files_by_stem(sensor, log).items():
            scenes.setdefault(stem, {})[name] = item
    if not scenes:
        raise DataError(f"{printable(str(part.path))} holds no sensor folders with files to pair")
    if all(len(scene) < len(folders) for scene in scenes.values()):
        stems = {name: sorted(stem for stem, scene in scenes.items() if name in scene) for name in folders}
        examples = "; ".join(
            f"{name} has {', '.join(repr(stem) for stem in some[:3])}{' ...' if len(some) > 3 else ''}"
            for name, some in stems.items()
        )
        raise DataError(
            f"{printable(str(part.path))}: no sample is complete, as no name is in each of "
            f"{counted(len(folders), 'folder')} ({printable(examples)}); files of one sample need the same name up to "
            "the last dot"
        )
    for stem, scene in sorted(scenes.items()):
        for name in (name for name in folders if name not in scene):
            log.add_lacking(folders[name] / stem, f"no such file: the sample is packed without {name}")
    return scenes


def _files_by_stem(folder: Folder, log: PackLog) -> dict[str, SourceFile]:
    """Return the files of one sensor by their stem. Raise `DataError`."""
    found: dict[str, SourceFile] = {}
    path = printable(str(folder.path))
    for file in folder.files:
        if file.parent != folder.path:
            log.leave_out(file, "deeper than the files of its sensor")
        elif (item := inspect_file(file, READABLE, log)) is not None:
            if file.stem in found:
                names = f"{printable(file.name)} and {printable(found[file.stem].file.name)}"
                raise DataError(f"{path} has several files for {file.stem!r}: {names}")
            found[file.stem] = item
    if not found and not folder.own_files():
        raise DataError(
            f"{path} holds only folders, but the files of a sensor must be in its own folder; splits come first, as in "
            f"train/{printable(folder.path.name)}/0001.png"
        )
    if not found:
        last = log.left_out[-1]
        raise DataError(
            f"{path}: no file of this sensor can be packed ({printable(last.path)}: {last.reason}); convert them to "
            "npy (signals [c, t]), png, jpg or wav, or move the folder away"
        )
    return found


def _sensor_split(listed: list[tuple[str, dict[str, SourceFile]]], log: PackLog) -> PackSplit:
    def fields(i: int) -> Fields:
        contents = {field: item.content(extension(field), log) for field, item in listed[i][1].items()}
        return {field: content for field, content in contents.items() if content is not None}

    return PackSplit(len(listed), fields, name=lambda i: listed[i][0])
