"""One folder per sensor as material for `pack`; the files of a sample share their stem.

in   the folder of each split, and the account of what is left out
out  `Material`: the field SENSOR.ENDING for each sensor; a sample may lack some, which the account tells
"""

from pathlib import Path

from mvssl.data.decoding.decode import DECODERS
from mvssl.data.decoding.file_types import extension
from mvssl.data.packing.class_folders import unread
from mvssl.data.packing.items import PICTURES, READABLE, Item, common_field, examined, packed
from mvssl.data.packing.sources import Fields, Material, Split, field_name
from mvssl.data.packing.survey import Account, Folder
from mvssl.errors import DataError
from mvssl.text import counted, printable

Scenes = dict[str, dict[str, Item]]  # stem -> sensor -> file


def paired_material(parts: dict[str, Folder], account: Account) -> Material:
    """Raises `DataError` where a sensor has no file that is read, two files of one stem, or no sample is whole."""
    scenes = {split: _scenes(part, account) for split, part in parts.items()}
    sensors = {sensor for found in scenes.values() for scene in found.values() for sensor in scene}
    fields = {sensor: _field(sensor, scenes) for sensor in sensors}
    return Material(
        {split: _split(found, fields, account) for split, found in scenes.items()}, None, len(parts) > 1, account
    )


def _scenes(part: Folder, account: Account) -> Scenes:
    for file in part.files:
        account.leave(file, "beside the sensor folders")
    found: Scenes = {}
    folders: dict[str, Path] = {}
    for sensor in part.folders:
        name = field_name(sensor.path.name)
        if name in folders:
            raise DataError(f"{folders[name]} and {sensor.path} would both be the sensor {name!r}; rename one")
        folders[name] = sensor.path
        for stem, item in _sensor(sensor, account).items():
            found.setdefault(stem, {})[name] = item
    if not found:
        raise DataError(f"{printable(str(part.path))} holds no sensor folders with files to pair")
    _refuse_unpaired(part.path, found, folders)
    for stem, scene in sorted(found.items()):
        for name in folders:
            if name not in scene:
                account.lack(folders[name] / stem, f"no such file: the sample is packed without {name}")
    return found


def _sensor(folder: Folder, account: Account) -> dict[str, Item]:
    """The files of one sensor by their stem."""
    found: dict[str, Item] = {}
    for below in folder.folders:
        for file in below.all_files():
            account.leave(file, "deeper than the files of its sensor")
    for file in folder.files:
        if extension(file.name) not in READABLE:
            account.leave(file, unread(file))
        elif (item := examined(file, account)) is not None:
            if file.stem in found:
                raise DataError(
                    f"{printable(str(folder.path))} has several files for {file.stem!r}: {printable(file.name)} and "
                    f"{printable(found[file.stem].file.name)}"
                )
            found[file.stem] = item
    if not found and not folder.files:
        raise DataError(
            f"{printable(str(folder.path))} holds only folders, and the files of a sensor stand in its own folder; "
            f"splits come first, as in train/{printable(folder.path.name)}/0001.png"
        )
    if not found:
        last = account.left_out[-1]
        raise DataError(
            f"{printable(str(folder.path))}: no file of this sensor can be packed ({printable(last.path)}: "
            f"{last.reason}); convert them to npy (signals [c, t]), png, jpg or wav, or move the folder away"
        )
    return found


def _refuse_unpaired(path: Path, found: Scenes, folders: dict[str, Path]) -> None:
    if any(len(scene) == len(folders) for scene in found.values()):
        return
    stems = {name: sorted(stem for stem, scene in found.items() if name in scene) for name in folders}
    told = "; ".join(
        f"{name} has {', '.join(repr(stem) for stem in some[:3])}{' ...' if len(some) > 3 else ''}"
        for name, some in stems.items()
    )
    raise DataError(
        f"{printable(str(path))}: no sample is whole, as no name stands in each of {counted(len(folders), 'folder')} "
        f"({printable(told)}); files of one sample need the same name up to the last dot"
    )


def _field(sensor: str, scenes: dict[str, Scenes]) -> str:
    """One ending for all pictures of a sensor; empty where other files stand among them, and each keeps its own."""
    items = [scene[sensor] for found in scenes.values() for scene in found.values() if sensor in scene]
    return common_field(items) if all(extension(item.file.name) in PICTURES for item in items) else ""


def _split(found: Scenes, fields: dict[str, str], account: Account) -> Split:
    listed = sorted(found.items())

    def ending(sensor: str, item: Item) -> str:
        return fields[sensor] or (item.kind if item.kind in DECODERS else item.field)

    def sample(i: int) -> Fields:
        contents = {
            f"{sensor}.{ending(sensor, item)}": packed(item, ending(sensor, item), account)
            for sensor, item in listed[i][1].items()
        }
        return {field: content for field, content in contents.items() if content is not None}

    holds = frozenset(f"{sensor}.{ending(sensor, item)}" for _, scene in listed for sensor, item in scene.items())
    return Split(len(listed), sample, name=lambda i: listed[i][0], holds=holds)
