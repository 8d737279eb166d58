"""What `pack` can make shards from: scikit-learn's digits, torchvision's sets; see also `folders` and `archives`.

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

from mvssl.data.decoding.images import upright
from mvssl.data.packing.survey import Account
from mvssl.errors import DataError, RecipeError
from mvssl.files import cache_folder

Fields = dict[str, bytes]  # field -> content


class Split(NamedTuple):
    count: int
    fields: Callable[[int], Fields]  # empty where the sample turned out unusable, which the account tells
    labels: list[int] | None = None  # classes to keep in proportion when the split is divided
    name: Callable[[int], str] | None = None  # where the i-th sample came from
    holds: frozenset[str] = frozenset()  # fields that some sample has, where the source's own splits could differ


class Material(NamedTuple):
    splits: dict[str, Split]
    classes: list[str] | None = None
    fixed: bool = True  # the splits are the source's own; else part of train becomes val
    account: Account | None = None  # what of the source is left out


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
        from mvssl.recipe.messages import nearest

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
            return {"png": png_bytes(upright(image)), "cls": str(int(label)).encode()}
        except OSError as error:  # a damaged file, or an image of a kind that no png holds
            raise DataError(f"torchvision's {name}: sample {i} cannot become png: {error}") from None
        except (AttributeError, TypeError, ValueError):
            raise DataError(f"torchvision's {name} does not give pairs of an image and a class number") from None

    labels = getattr(data, "targets", None)
    return Split(len(data), fields, None if labels is None else [int(label) for label in labels])
