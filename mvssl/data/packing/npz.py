"""An npz of arrays as material for `pack`.

in   x [n, ...] and y [n]; also x_train and x_test, or train_images and val_images
out  `Material`: x.npy and cls of each sample; what was read in a way that could be another is told in its notes

The size of every array is checked before anything is unpacked. Labels are in `mvssl.data.packing.npz_labels`.
"""

import os
import re
import zipfile
from pathlib import Path

import numpy as np

from mvssl.data.packing.npz_labels import Targets, targets
from mvssl.data.packing.sources import Fields, Material, Split, field_name, npy_bytes
from mvssl.data.packing.survey import Account
from mvssl.errors import DataError
from mvssl.text import printable

Arrays = dict[str, np.ndarray]

_SPLITS = {"valid": "val", "validation": "val", "dev": "val", "testing": "test", "training": "train"}
_NAMED = "train|training|val|valid|validation|dev|test|testing"
_PREFIX, _SUFFIX = re.compile(f"({_NAMED})_(.+)", re.IGNORECASE), re.compile(f"(.+)_({_NAMED})", re.IGNORECASE)
_COLOURS = (1, 3)


def arrays(path: Path) -> Material:
    """The arrays of an npz, which agree in their first dimension: `y` or `label(s)` becomes cls, the others NAME.npy.

    Names such as x_train, x_test or train_images, val_images give splits; a test split is val where there is no other.
    Images [n, h, w] of uint8 or bool and [n, h, w, 1 or 3] are turned to [n, c, h, w]. Raises `DataError`.
    """
    account = Account()
    splits: dict[str, Arrays] = {}
    found = _load(path, account)
    for name, array in found.items():
        split, rest = _split_of(name)
        splits.setdefault(split, {})[rest] = array
    if "test" in splits and "val" not in splits:
        splits["val"] = splits.pop("test")
    if "train" not in splits:
        raise DataError(f"{path} holds {_names(found)}: no array belongs to train")
    for split, each in splits.items():
        _refuse_uneven(path, each)
        if set(each) != set(splits["train"]):
            raise DataError(
                f"{path}: {split} has {_names(each)} where train has {_names(splits['train'])}; every split needs the "
                "same arrays. Rename arrays that belong to no split, such as val_mask to mask2"
            )
    _refuse_alike(path, list(splits["train"]))
    labels = targets(path, splits, account)
    return Material(
        {split: _split(path, each, labels, split, account) for split, each in splits.items()},
        labels.classes if labels else None,
        len(splits) > 1,
        account,
    )


def _load(path: Path, account: Account) -> Arrays:
    """The arrays, once their headers have shown that they are plain and fit into memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if entry.filename.endswith(".npy")]
            for entry in set(archive.infolist()) - set(entries):
                account.leave(Path(entry.filename), "no npy array")
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
    except Exception as error:  # zip, zlib and numpy say in many ways that a file is damaged
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
    asked = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if asked != entry.file_size - file.tell():
        raise DataError(f"{path} is no npz of plain arrays: the header of {name!r} asks for {asked:,} bytes")


def _free_memory() -> int:
    """Bytes that may be allocated without swapping."""
    try:
        line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _split_of(name: str) -> tuple[str, str]:
    """The split that an array belongs to, and its name without it."""
    if match := _PREFIX.fullmatch(name):
        split, rest = match.groups()
    elif match := _SUFFIX.fullmatch(name):
        rest, split = match.groups()
    else:
        return "train", name
    return _SPLITS.get(split.lower(), split.lower()), rest


def _names(arrays: Arrays) -> str:
    return printable(", ".join(arrays)) or "nothing"


def _refuse_uneven(path: Path, arrays: Arrays) -> None:
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        shapes = ", ".join(f"{printable(name)} {list(array.shape)}" for name, array in arrays.items())
        raise DataError(f"{path}: the arrays must have the same number of samples as their first dimension ({shapes})")


def _refuse_alike(path: Path, names: list[str]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        first = seen.setdefault(field_name(name), name)
        if first != name:
            raise DataError(
                f"{path}: the arrays {first!r} and {name!r} would both be the field {field_name(name)}.npy; rename one"
            )


def _split(path: Path, arrays: Arrays, labels: Targets | None, split: str, account: Account) -> Split:
    texts = {name: array for name, array in arrays.items() if array.dtype.kind == "U" and array.ndim == 1}
    kept = {
        name: _channels_first(path, name, array, account)
        for name, array in arrays.items()
        if name not in texts and (labels is None or name != labels.array)
    }
    classes = labels.numbers[split] if labels else None

    def fields(i: int) -> Fields:
        sample = {f"{field_name(name)}.npy": npy_bytes(array[i]) for name, array in kept.items()}
        sample |= {
            f"{field_name(name)}.txt": str(array[i]).encode()
            for name, array in texts.items()
            if labels is None or name != labels.array
        }
        return sample if classes is None or classes[i] is None else {**sample, "cls": str(classes[i]).encode()}

    rows = None if classes is None else [-1 if number is None else number for number in classes]
    return Split(len(next(iter(arrays.values()))), fields, rows)


def _channels_first(path: Path, name: str, array: np.ndarray, account: Account) -> np.ndarray:
    """The array as samples of [c, h, w], [c, t], [d] or numbers. Raises `DataError` where it is anybody's guess."""
    if array.dtype.kind not in "buif":
        raise DataError(f"{path}: {name!r} is an array of {array.dtype}; numbers are packed, and texts [n]")
    if array.ndim > 4:
        raise DataError(f"{path}: {name!r} {list(array.shape)} has samples of {array.ndim - 1} dimensions; "
                        "[n, c, h, w], [n, c, t] and [n, d] are read")  # fmt: skip
    if array.ndim == 3 and array.dtype in (np.uint8, np.bool_):
        return array[:, None]
    if array.ndim < 4:
        return array
    first, height, last = array.shape[1], array.shape[2], array.shape[3]
    if last in _COLOURS and first in _COLOURS and (first, last) != (1, 1):
        raise _ambiguous(path, name, array)
    if (last in _COLOURS and first not in _COLOURS) or (last == 4 and first == height > 4):
        account.note(f"{name} {list(array.shape)} was read as [n, h, w, c] and turned to [n, c, h, w]")
        return array.transpose(0, 3, 1, 2)
    if first not in _COLOURS and first == height > last:
        raise _ambiguous(path, name, array)
    return array


def _ambiguous(path: Path, name: str, array: np.ndarray) -> DataError:
    return DataError(
        f"{path}: {name!r} {list(array.shape)} could be [n, c, h, w] or [n, h, w, c]; save each sample as an npy file "
        "in a folder, pack the folder, and say channels_last: true of the column where channels come last"
    )
