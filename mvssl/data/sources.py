"""What `pack` can make shards from: scikit-learn's digits, torchvision's sets, arrays; folders are in `folders`.

in   the name of a source
out  `Material`: for each split, how many samples there are, and a function that gives the fields of the i-th as bytes
"""

import inspect
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mvssl.data.index import cache_folder
from mvssl.errors import DataError, RecipeError

Fields = dict[str, bytes]  # field -> content


class Split(NamedTuple):
    count: int
    fields: Callable[[int], Fields]
    labels: list[int] | None = None  # classes to keep in proportion when the split is divided
    name: Callable[[int], str] | None = None  # where the i-th sample came from


class Material(NamedTuple):
    splits: dict[str, Split]
    classes: list[str] | None = None
    fixed: bool = True  # the splits are the source's own; else part of train becomes val


def npy_bytes(array: np.ndarray) -> bytes:
    """The array as an npy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def png_bytes(image: Image.Image) -> bytes:
    """The image as a PNG, without loss."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def field_name(name: str) -> str:
    """`name` as the first part of a field: lower case, `_` for what would part it from its key, ending or pattern."""
    return re.sub(r"[./\\;\x00-\x1f\x7f]", "_", name).lower()


def digits() -> Material:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels: png and cls, always the same 1,437 and 360."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    train, val = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)

    def split(rows: np.ndarray) -> Split:
        def fields(i: int) -> Fields:
            return {"png": png_bytes(Image.fromarray(pixels[rows[i]])), "cls": str(labels[rows[i]]).encode()}

        return Split(len(rows), fields)

    return Material(
        {"train": split(np.asarray(train)), "val": split(np.asarray(val))}, [str(digit) for digit in range(10)]
    )


def torchvision_set(name: str, root: Path | None = None) -> Material:
    """A classification set of torchvision by name, downloaded to `root`: png and cls.

    Raises `RecipeError` where there is no such set, `DataError` where it cannot be had.
    """
    from torchvision import datasets

    made: Any = getattr(datasets, name, None)
    if not (inspect.isclass(made) and name in datasets.__all__):
        from mvssl.recipe import nearest

        raise RecipeError(f"torchvision has no set {name!r}{nearest(name, sorted(datasets.__all__))}")
    accepts = inspect.signature(made).parameters
    where: dict[str, Any] = {"root": str(root or cache_folder() / "torchvision")}
    where |= {"download": True} if "download" in accepts else {}
    if "train" in accepts:
        chosen = {"train": {"train": True}, "val": {"train": False}}
    elif "split" in accepts:
        chosen = {"train": {"split": "train"}, "val": {"split": "test"}}
    else:
        chosen = {"train": {}}
    try:
        sets = {split: made(**where, **options) for split, options in chosen.items()}
        splits = {split: _torchvision_split(name, data) for split, data in sets.items()}
    except Exception as error:  # each set fails in its own way
        raise DataError(
            f"torchvision's {name} cannot be had under {where['root']}: {error or type(error).__name__}"
        ) from None
    return Material(
        splits,
        [str(one) for one in getattr(sets["train"], "classes", None) or []] or None,
        fixed=len(sets) > 1,
    )


def _torchvision_split(name: str, data: Any) -> Split:
    def fields(i: int) -> Fields:
        try:
            image, label = data[i]
            return {"png": png_bytes(image), "cls": str(int(label)).encode()}
        except (AttributeError, TypeError, ValueError):
            raise DataError(f"torchvision's {name} does not give pairs of an image and a class number") from None

    labels = getattr(data, "targets", None)
    return Split(len(data), fields, None if labels is None else [int(label) for label in labels])


def arrays(path: Path) -> Material:
    """An npz whose arrays agree in their first dimension: `x` becomes x.npy of each sample, `y` or `label(s)` cls.

    Names such as x_train, x_test or train_images, val_images give splits; a test split is val where there is no other.
    uint8 images [n, h, w] and [n, h, w, 1 or 3] are turned to [c, h, w]. Raises `DataError`.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            found = {name: archive[name] for name in archive.files}
    except Exception as error:  # zip, zlib and numpy say in many ways that a file is damaged
        raise DataError(f"{path} is no npz of plain arrays: {error or type(error).__name__}") from None
    splits: dict[str, dict[str, np.ndarray]] = {}
    for name, array in found.items():
        split, rest = _split_of(name)
        splits.setdefault(split, {})[rest] = array
    if "test" in splits and "val" not in splits:
        splits["val"] = splits.pop("test")
    if "train" not in splits:
        raise DataError(f"{path} holds {', '.join(found)}: no array belongs to train")
    return Material({split: _array_split(path, each) for split, each in splits.items()}, fixed=len(splits) > 1)


def _split_of(name: str) -> tuple[str, str]:
    match = re.fullmatch(r"(train|val|test)_(.+)", name) or re.fullmatch(r"(.+)_(train|val|test)", name)
    if match is None:
        return "train", name
    first, second = match.groups()
    return (first, second) if first in ("train", "val", "test") else (second, first)


def _array_split(path: Path, arrays: dict[str, np.ndarray]) -> Split:
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        told = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
        raise DataError(f"{path}: the arrays must have the same number of samples as their first dimension ({told})")
    labels = next((name for name in ("y", "label", "labels") if name in arrays and _is_label(arrays[name])), None)
    kept = {name: _channels_first(array) for name, array in arrays.items() if name != labels}
    classes = None if labels is None else [int(label) for label in arrays[labels].reshape(-1)]

    alike = {field_name(name): name for name in kept}
    if len(alike) < len(kept):
        one = next(name for name in kept if alike[field_name(name)] != name)
        raise DataError(
            f"{path}: the arrays {one!r} and {alike[field_name(one)]!r} would both be the field "
            f"{field_name(one)}.npy; rename one"
        )

    def fields(i: int) -> Fields:
        sample = {f"{field_name(name)}.npy": npy_bytes(array[i]) for name, array in kept.items()}
        return sample if classes is None else {**sample, "cls": str(classes[i]).encode()}

    return Split(next(iter(counts.values())), fields, classes)


def _is_label(array: np.ndarray) -> bool:
    return array.dtype.kind in "iu" and array.size == len(array)


def _channels_first(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8 and array.ndim == 3:
        return array[:, None]
    if array.dtype == np.uint8 and array.ndim == 4 and array.shape[3] in (1, 3) and array.shape[1] not in (1, 3):
        return array.transpose(0, 3, 1, 2)
    return array
