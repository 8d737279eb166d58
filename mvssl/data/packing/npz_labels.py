"""The labels of an npz: which array they are, and the class number of each sample.

in   the arrays of each split
out  `Targets`, or None where no array holds classes; every reading that could be another is told in a note
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from mvssl.data.packing.survey import Account
from mvssl.errors import DataError
from mvssl.text import counted, printable

_NAMES = ("y", "label", "labels")
_MOST = 2**31


class Targets(NamedTuple):
    array: str  # the name of the array
    numbers: dict[str, list[int | None]]  # split -> class of each sample; None where it has no label
    classes: list[str] | None  # in the order of their numbers, where the labels are texts


def targets(path: Path, splits: dict[str, dict[str, np.ndarray]], account: Account) -> Targets | None:
    """The labels. Raises `DataError` where they mean one thing to mvssl and may mean another to people."""
    for name in _NAMES:
        if name in splits["train"]:
            flat = {split: _flat(arrays[name]) for split, arrays in splits.items()}
            found = {split: values for split, values in flat.items() if values is not None}
            if len(found) == len(flat):
                if any(splits[split][name].size != len(values) for split, values in found.items()):
                    account.note(f"{name}: the place of the one 1 in each row became cls")
                made = _numbered(path, name, found, account)
                if made:
                    return made
    return None


def _flat(array: np.ndarray) -> np.ndarray | None:
    """One label per sample, [n]; None where the array holds something else."""
    if array.size == len(array):
        return array.reshape(-1)
    if array.ndim == 2 and array.dtype.kind in "buif" and ((array == 0) | (array == 1)).all():
        return array.argmax(1) if (array.sum(1) == 1).all() else None
    return None


def _numbered(path: Path, name: str, found: dict[str, np.ndarray], account: Account) -> Targets | None:
    every = np.concatenate(list(found.values()))
    if every.dtype.kind in "US":
        return _named(name, found, _texts(np.unique(every)), account)
    if every.dtype.kind not in "buif":
        return None
    known = every[~np.isnan(every)] if every.dtype.kind == "f" else every
    distinct = np.unique(known).tolist()
    plain = distinct == list(range(len(distinct)))
    if every.dtype.kind == "f" and not plain and distinct != [-1, 1]:
        account.note(f"{name} holds numbers that are no classes 0, 1, 2, ...; it became the field {name}.npy")
        return None
    if distinct and (distinct[0] < 0 or distinct[-1] >= _MOST):
        instead = f"save ({name} + 1) // 2" if distinct == [-1, 1] else "number the classes 0, 1, 2, ..."
        raise DataError(
            f"{path}: the labels {name!r} go from {distinct[0]} to {distinct[-1]}, and a negative number means no "
            f"label to mvssl; {instead}. Where it does mean no label, save {name} as floats with nan in its place"
        )
    if len(known) < len(every):
        account.note(f"{name}: {counted(len(every) - len(known), 'sample')} with nan got no label")
    numbers = {
        split: [None if value != value else int(value) for value in values.tolist()] for split, values in found.items()
    }
    return Targets(name, numbers, None)


def _named(name: str, found: dict[str, np.ndarray], classes: list[str], account: Account) -> Targets:
    """Texts numbered in the order of `classes`."""
    number = {text: i for i, text in enumerate(classes)}
    some = ", ".join(f"{text} is {i}" for i, text in enumerate(classes[:3]))
    account.note(
        f"{name}: classes got numbers ({printable(some)}{', ...' if len(classes) > 3 else ''}); see classes.txt"
    )
    numbers: dict[str, list[int | None]] = {
        split: [number[text] for text in _texts(values)] for split, values in found.items()
    }
    return Targets(name, numbers, classes)


def _texts(values: np.ndarray) -> list[str]:
    if values.dtype.kind == "S":
        return [value.decode("utf-8", "backslashreplace") for value in values.tolist()]
    return values.tolist()
