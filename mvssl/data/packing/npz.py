"""An npz of arrays as an input of `pack`.

in   x [n, ...] and y [n]; also x_train and x_test, or train_images and val_images
out  `PackInput`: x.npy and cls of each sample; a note for each array whose meaning was a guess

The size of every array is checked before anything is unpacked.
"""

import re
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from mvssl.data.decoding.arrays import npy_bytes
from mvssl.data.packing.samples import SPLIT_NAMES, Fields, PackInput, PackLog, PackSplit, field_name
from mvssl.errors import DataError
from mvssl.text import counted, printable

Arrays = dict[str, np.ndarray]

_PREFIX = re.compile(f"(?P<split>{'|'.join(SPLIT_NAMES)})_(?P<name>.+)", re.IGNORECASE)
_SUFFIX = re.compile(f"(?P<name>.+)_(?P<split>{'|'.join(SPLIT_NAMES)})", re.IGNORECASE)
_CHANNELS = (1, 3)  # of images
_LABELS = ("y", "label", "labels")
_MOST_CLASSES = 2**31


class Labels(NamedTuple):
    array: str  # the name of the array
    numbers: dict[str, np.ndarray]  # split -> class of each sample, int64 [n]; -1 if it has no label
    classes: list[str] | None  # in the order of their numbers, if the labels are texts


def open_npz_file(path: Path) -> PackInput:
    """Return the arrays of an npz, which agree in their first dimension. `y` or `label(s)` become cls, others NAME.npy.

    Names such as x_train, x_test or train_images, val_images give splits; a test split is val if there is no other.
    Images [n, h, w] of uint8 or bool and [n, h, w, 1 or 3] are turned to [n, c, h, w]. Raise `DataError`.
    """
    log = PackLog()
    splits: dict[str, Arrays] = {}
    loaded = _load(path, log)
    for full_name, array in loaded.items():
        match = _PREFIX.fullmatch(full_name) or _SUFFIX.fullmatch(full_name)
        split, name = (SPLIT_NAMES[match["split"].lower()], match["name"]) if match else ("train", full_name)
        splits.setdefault(split, {})[name] = array
    if "test" in splits and "val" not in splits:
        splits["val"] = splits.pop("test")
    _check_arrays(path, splits, loaded)
    labels = _find_labels(path, splits, log)
    made = {split: _open_split(path, arrays, labels, split, log) for split, arrays in splits.items()}
    return PackInput(made, labels.classes if labels else None, log)


def _load(path: Path, log: PackLog) -> Arrays:
    """Return the arrays, after their headers have shown that they hold plain numbers and fit into memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            for entry in archive.infolist():
                if entry not in entries:
                    log.leave_out(Path(entry.filename), "no npy array")
            total, free = sum(entry.file_size for entry in entries), psutil.virtual_memory().available
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


def _check_arrays(path: Path, splits: dict[str, Arrays], loaded: Arrays) -> None:
    """Raise `DataError` if the splits differ in their arrays, arrays in their length, or fields would be equal."""

    def names(arrays: Arrays) -> str:
        return printable(", ".join(arrays)) or "nothing"

    if "train" not in splits:
        raise DataError(f"{path} holds {names(loaded)}: no array belongs to train")
    train = splits["train"]
    for split, arrays in splits.items():
        counts = {len(array) if array.ndim else 0 for array in arrays.values()}
        if len(counts) != 1 or 0 in counts:
            shapes = ", ".join(f"{printable(name)} {list(array.shape)}" for name, array in arrays.items())
            raise DataError(
                f"{path}: the arrays must have the same number of samples as their first dimension ({shapes})"
            )
        if set(arrays) != set(train):
            raise DataError(
                f"{path}: {split} has {names(arrays)} where train has {names(train)}; every split needs the same "
                "arrays. Rename arrays that belong to no split, such as val_mask to mask2"
            )
    first: dict[str, str] = {}  # field -> the first array that becomes it
    for name in train:
        if first.setdefault(field_name(name), name) != name:
            raise DataError(
                f"{path}: the arrays {first[field_name(name)]!r} and {name!r} would both be the field "
                f"{field_name(name)}.npy; rename one"
            )


def _open_split(path: Path, arrays: Arrays, labels: Labels | None, split: str, log: PackLog) -> PackSplit:
    numbers = labels.numbers[split] if labels else None
    others = {name: array for name, array in arrays.items() if labels is None or name != labels.array}
    texts = {name: array for name, array in others.items() if array.dtype.kind == "U" and array.ndim == 1}
    kept = {name: _channels_first(path, name, array, log) for name, array in others.items() if name not in texts}

    def fields(i: int) -> Fields:
        sample = {f"{field_name(name)}.npy": npy_bytes(array[i]) for name, array in kept.items()}
        sample |= {f"{field_name(name)}.txt": str(array[i]).encode() for name, array in texts.items()}
        return sample if numbers is None or numbers[i] < 0 else {**sample, "cls": str(numbers[i]).encode()}

    return PackSplit(len(next(iter(arrays.values()))), fields, numbers)


def _channels_first(path: Path, name: str, array: np.ndarray, log: PackLog) -> np.ndarray:
    """Return the array as samples [c, h, w], [c, t], [d] or numbers. Raise `DataError` if it is unclear."""
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
    both = last in _CHANNELS and first in _CHANNELS and (first, last) != (1, 1)
    if not both and ((last in _CHANNELS and first not in _CHANNELS) or (last == 4 and first == height > 4)):
        log.add_note(f"{name} {list(array.shape)} was read as [n, h, w, c] and turned to [n, c, h, w]")
        return array.transpose(0, 3, 1, 2)
    if both or (first not in _CHANNELS and first == height > last):
        raise DataError(
            f"{path}: {name!r} {list(array.shape)} could be [n, c, h, w] or [n, h, w, c]; save each sample as an npy "
            "file in a folder, pack the folder, and give the column channels_last: true where channels come last"
        )
    return array


def _find_labels(path: Path, splits: dict[str, Arrays], log: PackLog) -> Labels | None:
    """Return the labels; None if no array holds classes. Each guess goes to `log` as a note.

    Raise `DataError` if negative numbers, which mean "no label" to mvssl, may mean something else.
    """
    for name in _LABELS:
        values = [_one_per_sample(arrays[name]) for arrays in splits.values() if name in arrays]
        flat = [array for array in values if array is not None]
        if not flat or len(flat) < len(values):
            continue
        if any(arrays[name].size != len(array) for arrays, array in zip(splits.values(), flat, strict=True)):
            log.add_note(f"{name}: the place of the one 1 in each row became cls")
        numbers, classes = _number_classes(path, name, np.concatenate(flat), log)
        if numbers is not None:
            parts = np.split(numbers, np.cumsum([len(array) for array in flat])[:-1])
            return Labels(name, dict(zip(splits, parts, strict=True)), classes)
    return None


def _one_per_sample(array: np.ndarray) -> np.ndarray | None:
    """Return one label per sample, [n]; None if the array holds something else."""
    if array.size == len(array):
        return array.reshape(-1)
    if array.ndim == 2 and array.dtype.kind in "buif" and ((array == 0) | (array == 1)).all():
        return array.argmax(1) if (array.sum(1) == 1).all() else None
    return None


def _number_classes(
    path: Path, name: str, labels: np.ndarray, log: PackLog
) -> tuple[np.ndarray | None, list[str] | None]:
    """Return the class number of each label [n], -1 for none, and the names; (None, None) if they are no classes."""
    if labels.dtype.kind in "US":
        texts, numbers = np.unique(labels, return_inverse=True)
        classes = texts.tolist()
        if labels.dtype.kind == "S":
            classes = [text.decode("utf-8", "backslashreplace") for text in classes]
        examples = printable(", ".join(f"{text} is {i}" for i, text in enumerate(classes[:3])))
        log.add_note(f"{name}: classes got numbers ({examples}{', ...' if len(classes) > 3 else ''}); see classes.txt")
        return numbers, classes
    if labels.dtype.kind not in "buif":
        return None, None
    unknown = np.isnan(labels)
    distinct = np.unique(labels[~unknown]).tolist()
    if labels.dtype.kind == "f" and distinct not in ([*range(len(distinct))], [-1, 1]):
        log.add_note(f"{name} holds numbers that are no classes 0, 1, 2, ...; it became the field {name}.npy")
        return None, None
    if distinct and (distinct[0] < 0 or distinct[-1] >= _MOST_CLASSES):
        instead = f"save ({name} + 1) // 2" if distinct == [-1, 1] else "number the classes 0, 1, 2, ..."
        raise DataError(
            f"{path}: the labels {name!r} go from {distinct[0]} to {distinct[-1]}, and a negative number means no "
            f"label to mvssl; {instead}. Where it does mean no label, save {name} as floats with nan in its place"
        )
    if unknown.any():
        log.add_note(f"{name}: {counted(int(unknown.sum()), 'sample')} with nan got no label")
    return np.where(unknown, -1.0, labels).astype(np.int64), None
