"""An npz of arrays as a source of `pack`.

in   x [n, ...] and y [n]; also x_train and x_test, or train_images and val_images
out  `PackSource`: x.npy and cls of each sample; a note for each array whose meaning was a guess

The size of every array is checked before anything is unpacked.
"""

import os
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mvssl.data.decoding.arrays import npy_bytes
from mvssl.data.packing.source import Fields, PackLog, PackSource, PackSplit, field_name
from mvssl.errors import DataError
from mvssl.text import counted, printable

Arrays = dict[str, np.ndarray]

_SPLITS = {"valid": "val", "validation": "val", "dev": "val", "testing": "test", "training": "train"}
_SPLIT_NAMES = "train|training|val|valid|validation|dev|test|testing"
_PREFIX = re.compile(f"(?P<split>{_SPLIT_NAMES})_(?P<name>.+)", re.IGNORECASE)
_SUFFIX = re.compile(f"(?P<name>.+)_(?P<split>{_SPLIT_NAMES})", re.IGNORECASE)
_COLOURS = (1, 3)
_LABELS = ("y", "label", "labels")
_MOST_CLASSES = 2**31


class Labels(NamedTuple):
    array: str  # the name of the array
    numbers: dict[str, list[int | None]]  # split -> class of each sample; None where it has no label
    classes: list[str] | None  # in the order of their numbers, where the labels are texts


def open_npz_file(path: Path) -> PackSource:
    """Return the arrays of an npz, which agree in their first dimension. `y` or `label(s)` become cls, others NAME.npy.

    Names such as x_train, x_test or train_images, val_images give splits; a test split is val where there is no other.
    Images [n, h, w] of uint8 or bool and [n, h, w, 1 or 3] are turned to [n, c, h, w]. Raises `DataError`.
    """
    log = PackLog()
    splits: dict[str, Arrays] = {}
    loaded = _load(path, log)
    for full_name, array in loaded.items():
        match = _PREFIX.fullmatch(full_name) or _SUFFIX.fullmatch(full_name)
        split, name = (match["split"].lower(), match["name"]) if match else ("train", full_name)
        splits.setdefault(_SPLITS.get(split, split), {})[name] = array
    if "test" in splits and "val" not in splits:
        splits["val"] = splits.pop("test")
    if "train" not in splits:
        raise DataError(f"{path} holds {_names(loaded)}: no array belongs to train")
    for split, arrays in splits.items():
        _refuse_uneven(path, arrays)
        if set(arrays) != set(splits["train"]):
            raise DataError(
                f"{path}: {split} has {_names(arrays)} where train has {_names(splits['train'])}; every split needs "
                "the same arrays. Rename arrays that belong to no split, such as val_mask to mask2"
            )
    _refuse_equal_fields(path, list(splits["train"]))
    labels = find_labels(path, splits, log)
    made = {split: _split(path, arrays, labels, split, log) for split, arrays in splits.items()}
    return PackSource(made, labels.classes if labels else None, len(splits) > 1, log)


def _load(path: Path, log: PackLog) -> Arrays:
    """Return the arrays, after their headers have shown that they hold plain numbers and fit into memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            for entry in set(archive.infolist()) - set(entries):
                log.leave_out(Path(entry.filename), "no npy array")
            total, free = sum(entry.file_size for entry in entries), _free_memory()
            if total > free:
                raise DataError(
                    f"{path} unpacks to {total:,} bytes, and {free:,} bytes of memory are free; save its samples as "
                    "npy files in a folder, and pack the folder"
                )
            for entry in entries:
                with archive.open(entry) as file:
                    _check_header(path, entry, file)
        with np.load(path, allow_pickle=False) as archive:
            return {entry.filename.removesuffix(".npy"): archive[entry.filename] for entry in entries}
    except (DataError, MemoryError):
        raise
    except Exception as error:  # zip, zlib and numpy report damage in many ways
        raise DataError(f"{path} is no npz of plain arrays: {error or type(error).__name__}") from None


def _check_header(path: Path, entry: zipfile.ZipInfo, file) -> None:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    name = printable(entry.filename.removesuffix(".npy"))
    if dtype.hasobject:
        raise DataError(
            f"{path} is no npz of plain arrays: {name!r} holds Python objects, which need pickle; save numbers"
        )
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size != entry.file_size - file.tell():
        raise DataError(f"{path} is no npz of plain arrays: the header of {name!r} claims {size:,} bytes")


def _free_memory() -> int:
    """Return the bytes that may be allocated without swapping."""
    try:
        line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _names(arrays: Arrays) -> str:
    return printable(", ".join(arrays)) or "nothing"


def _refuse_uneven(path: Path, arrays: Arrays) -> None:
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        shapes = ", ".join(f"{printable(name)} {list(array.shape)}" for name, array in arrays.items())
        raise DataError(f"{path}: the arrays must have the same number of samples as their first dimension ({shapes})")


def _refuse_equal_fields(path: Path, names: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        first = seen.setdefault(field_name(name), name)
        if first != name:
            raise DataError(
                f"{path}: the arrays {first!r} and {name!r} would both be the field {field_name(name)}.npy; rename one"
            )


def _split(path: Path, arrays: Arrays, labels: Labels | None, split: str, log: PackLog) -> PackSplit:
    unlabelled = {name: array for name, array in arrays.items() if labels is None or name != labels.array}
    texts = {name: array for name, array in unlabelled.items() if array.dtype.kind == "U" and array.ndim == 1}
    kept = {name: _channels_first(path, name, array, log) for name, array in unlabelled.items() if name not in texts}
    classes = labels.numbers[split] if labels else None

    def fields(i: int) -> Fields:
        sample = {f"{field_name(name)}.npy": npy_bytes(array[i]) for name, array in kept.items()}
        sample |= {f"{field_name(name)}.txt": str(array[i]).encode() for name, array in texts.items()}
        return sample if classes is None or classes[i] is None else {**sample, "cls": str(classes[i]).encode()}

    rows = None if classes is None else [-1 if number is None else number for number in classes]
    return PackSplit(len(next(iter(arrays.values()))), fields, rows)


def _channels_first(path: Path, name: str, array: np.ndarray, log: PackLog) -> np.ndarray:
    """Return the array as samples [c, h, w], [c, t], [d] or numbers. Raises `DataError` where it is unclear."""
    if array.dtype.kind not in "buif":
        raise DataError(f"{path}: {name!r} is an array of {array.dtype}; numbers are packed, and texts [n]")
    if array.ndim > 4:
        raise DataError(
            f"{path}: {name!r} {list(array.shape)} has samples of {array.ndim - 1} dimensions; [n, c, h, w], "
            "[n, c, t] and [n, d] are read"
        )
    if array.ndim == 3 and array.dtype in (np.uint8, np.bool_):
        return array[:, None]
    if array.ndim < 4:
        return array
    first, height, last = array.shape[1:]
    both = last in _COLOURS and first in _COLOURS and (first, last) != (1, 1)
    if not both and ((last in _COLOURS and first not in _COLOURS) or (last == 4 and first == height > 4)):
        log.add_note(f"{name} {list(array.shape)} was read as [n, h, w, c] and turned to [n, c, h, w]")
        return array.transpose(0, 3, 1, 2)
    if both or (first not in _COLOURS and first == height > last):
        raise DataError(
            f"{path}: {name!r} {list(array.shape)} could be [n, c, h, w] or [n, h, w, c]; save each sample as an npy "
            "file in a folder, pack the folder, and give the column channels_last: true where channels come last"
        )
    return array


def find_labels(path: Path, splits: dict[str, Arrays], log: PackLog) -> Labels | None:
    """Return the labels; None where no array holds classes. Each guess goes to `log` as a note.

    Raises `DataError` where negative numbers, which mean "no label" to mvssl, may mean something else.
    """
    for name in _LABELS:
        if name in splits["train"]:
            flat = {split: _one_per_sample(arrays[name]) for split, arrays in splits.items()}
            values = {split: array for split, array in flat.items() if array is not None}
            if len(values) == len(flat):
                if any(splits[split][name].size != len(array) for split, array in values.items()):
                    log.add_note(f"{name}: the place of the one 1 in each row became cls")
                if labels := _number_classes(path, name, values, log):
                    return labels
    return None


def _one_per_sample(array: np.ndarray) -> np.ndarray | None:
    """Return one label per sample, [n]; None where the array holds something else."""
    if array.size == len(array):
        return array.reshape(-1)
    if array.ndim == 2 and array.dtype.kind in "buif" and ((array == 0) | (array == 1)).all():
        return array.argmax(1) if (array.sum(1) == 1).all() else None
    return None


def _number_classes(path: Path, name: str, values: dict[str, np.ndarray], log: PackLog) -> Labels | None:
    every = np.concatenate(list(values.values()))
    if every.dtype.kind in "US":
        return _number_texts(name, values, _texts(np.unique(every)), log)
    if every.dtype.kind not in "buif":
        return None
    known = every[~np.isnan(every)] if every.dtype.kind == "f" else every
    distinct = np.unique(known).tolist()
    plain = distinct == list(range(len(distinct)))
    if every.dtype.kind == "f" and not plain and distinct != [-1, 1]:
        log.add_note(f"{name} holds numbers that are no classes 0, 1, 2, ...; it became the field {name}.npy")
        return None
    if distinct and (distinct[0] < 0 or distinct[-1] >= _MOST_CLASSES):
        instead = f"save ({name} + 1) // 2" if distinct == [-1, 1] else "number the classes 0, 1, 2, ..."
        raise DataError(
            f"{path}: the labels {name!r} go from {distinct[0]} to {distinct[-1]}, and a negative number means no "
            f"label to mvssl; {instead}. Where it does mean no label, save {name} as floats with nan in its place"
        )
    if len(known) < len(every):
        log.add_note(f"{name}: {counted(len(every) - len(known), 'sample')} with nan got no label")
    numbers = {
        split: [None if value != value else int(value) for value in array.tolist()] for split, array in values.items()
    }
    return Labels(name, numbers, None)


def _number_texts(name: str, values: dict[str, np.ndarray], classes: list[str], log: PackLog) -> Labels:
    """Return texts as numbers in the order of `classes`."""
    number = {text: i for i, text in enumerate(classes)}
    examples = printable(", ".join(f"{text} is {i}" for i, text in enumerate(classes[:3])))
    log.add_note(f"{name}: classes got numbers ({examples}{', ...' if len(classes) > 3 else ''}); see classes.txt")
    numbers: dict[str, list[int | None]] = {
        split: [number[text] for text in _texts(array)] for split, array in values.items()
    }
    return Labels(name, numbers, classes)


def _texts(values: np.ndarray) -> list[str]:
    if values.dtype.kind == "S":
        return [value.decode("utf-8", "backslashreplace") for value in values.tolist()]
    return values.tolist()
