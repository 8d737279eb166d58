"""One folder per sensor as a source of `pack`; the files of a sample share their stem.

in   the folder of each split, and the log of what is left out
out  `PackSource`: the field SENSOR.ENDING for each sensor; a sample may lack some, which the log has
"""

from pathlib import Path

from mvssl.data.decoding import FIELD_FORMATS, extension
from mvssl.data.packing.class_folders import unread_reason
from mvssl.data.packing.folder_tree import Folder
from mvssl.data.packing.source import Fields, PackLog, PackSource, PackSplit, field_name
from mvssl.data.packing.source_files import PICTURES, READABLE, SourceFile, common_field, inspect_file
from mvssl.errors import DataError
from mvssl.text import counted, printable

Scenes = dict[str, dict[str, SourceFile]]  # stem -> sensor -> file


def open_sensor_folders(splits: dict[str, Folder], log: PackLog) -> PackSource:
    """Return the samples of all splits, paired by stem.

    Raises `DataError` where a sensor has no file that is read or two files of one stem, or no sample is complete.
    """
    scenes = {split: _pair_files(part, log) for split, part in splits.items()}
    sensors = {sensor for found in scenes.values() for scene in found.values() for sensor in scene}
    fields = {sensor: _common_field(sensor, scenes) for sensor in sensors}
    made = {split: _split(found, fields, log) for split, found in scenes.items()}
    return PackSource(made, None, len(splits) > 1, log)


def _pair_files(part: Folder, log: PackLog) -> Scenes:
    for file in part.files:
        log.leave_out(file, "beside the sensor folders")
    found: Scenes = {}
    folders: dict[str, Path] = {}
    for sensor in part.folders:
        name = field_name(sensor.path.name)
        if name in folders:
            raise DataError(f"{folders[name]} and {sensor.path} would both be the sensor {name!r}; rename one")
        folders[name] = sensor.path
        for stem, item in _files_by_stem(sensor, log).items():
            found.setdefault(stem, {})[name] = item
    if not found:
        raise DataError(f"{printable(str(part.path))} holds no sensor folders with files to pair")
    _refuse_unpaired(part.path, found, folders)
    for stem, scene in sorted(found.items()):
        for name in folders:
            if name not in scene:
                log.add_lacking(folders[name] / stem, f"no such file: the sample is packed without {name}")
    return found


def _files_by_stem(folder: Folder, log: PackLog) -> dict[str, SourceFile]:
    """Return the files of one sensor by their stem."""
    found: dict[str, SourceFile] = {}
    path = printable(str(folder.path))
    for below in folder.folders:
        for file in below.all_files():
            log.leave_out(file, "deeper than the files of its sensor")
    for file in folder.files:
        if extension(file.name) not in READABLE:
            log.leave_out(file, unread_reason(file))
        elif (item := inspect_file(file, log)) is not None:
            if file.stem in found:
                names = f"{printable(file.name)} and {printable(found[file.stem].file.name)}"
                raise DataError(f"{path} has several files for {file.stem!r}: {names}")
            found[file.stem] = item
    if not found and not folder.files:
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


def _refuse_unpaired(path: Path, found: Scenes, folders: dict[str, Path]) -> None:
    if any(len(scene) == len(folders) for scene in found.values()):
        return
    stems = {name: sorted(stem for stem, scene in found.items() if name in scene) for name in folders}
    examples = "; ".join(
        f"{name} has {', '.join(repr(stem) for stem in some[:3])}{' ...' if len(some) > 3 else ''}"
        for name, some in stems.items()
    )
    raise DataError(
        f"{printable(str(path))}: no sample is complete, as no name is in each of {counted(len(folders), 'folder')} "
        f"({printable(examples)}); files of one sample need the same name up to the last dot"
    )


def _common_field(sensor: str, scenes: dict[str, Scenes]) -> str:
    """Return one ending for all pictures of a sensor; empty where it has other files, which keep their own."""
    items = [scene[sensor] for found in scenes.values() for scene in found.values() if sensor in scene]
    return common_field(items) if all(extension(item.file.name) in PICTURES for item in items) else ""


def _split(found: Scenes, fields: dict[str, str], log: PackLog) -> PackSplit:
    listed = sorted(found.items())

    def ending(sensor: str, item: SourceFile) -> str:
        return fields[sensor] or (item.kind if item.kind in FIELD_FORMATS else item.field)

    def sample(i: int) -> Fields:
        contents = {
            f"{sensor}.{ending(sensor, item)}": item.content(ending(sensor, item), log)
            for sensor, item in listed[i][1].items()
        }
        return {field: content for field, content in contents.items() if content is not None}

    all_fields = frozenset(f"{sensor}.{ending(sensor, item)}" for _, scene in listed for sensor, item in scene.items())
    return PackSplit(len(listed), sample, name=lambda i: listed[i][0], all_fields=all_fields)
