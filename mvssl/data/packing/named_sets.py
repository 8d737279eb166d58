"""Data sets that have a name: scikit-learn's digits, torchvision's classification sets.

in   the name of a set
out  `PackInput`: png and cls of each sample
"""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mvssl.data.decoding.images import upright
from mvssl.data.packing.samples import Fields, PackInput, PackLog, PackSplit, png_bytes
from mvssl.errors import DataError, RecipeError
from mvssl.files import cache_folder
from mvssl.recipe.messages import nearest


def open_digits() -> PackInput:
    """Return scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, always the same 1,437 and 360."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    pixels = np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    train, val = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)

    def split(rows: np.ndarray) -> PackSplit:
        def fields(i: int) -> Fields:
            return {"png": png_bytes(Image.fromarray(pixels[rows[i]])), "cls": str(labels[rows[i]]).encode()}

        return PackSplit(len(rows), fields)

    splits = {"train": split(np.asarray(train)), "val": split(np.asarray(val))}
    return PackInput(splits, [str(digit) for digit in range(10)], PackLog())


def open_torchvision_set(name: str, root: Path | None = None) -> PackInput:
    """Return a classification set of torchvision by name, downloaded to `root`.

    Raise `RecipeError` if there is no such set, `DataError` if it cannot be loaded.
    """
    from torchvision import datasets

    kind: Any = vars(datasets).get(name)
    if not (inspect.isclass(kind) and name in datasets.__all__):
        raise RecipeError(f"torchvision has no set {name!r}{nearest(name, sorted(datasets.__all__))}")
    accepts = inspect.signature(kind).parameters
    options: dict[str, Any] = {"root": str(root or cache_folder() / "torchvision")}
    options |= {"download": True} if "download" in accepts else {}
    if "train" in accepts:
        parts = {"train": {"train": True}, "val": {"train": False}}
    else:
        parts = {"train": {"split": "train"}, "val": {"split": "test"}} if "split" in accepts else {"train": {}}
    try:
        sets = {split: kind(**options, **chosen) for split, chosen in parts.items()}
        splits = {split: _open_split(name, data) for split, data in sets.items()}
    except Exception as error:  # each set fails in its own way
        raise DataError(
            f"torchvision's {name} cannot be loaded under {options['root']}: {error or type(error).__name__}"
        ) from None
    classes = [str(each) for each in getattr(sets["train"], "classes", None) or []]
    return PackInput(splits, classes or None, PackLog())


def _open_split(name: str, data: Any) -> PackSplit:
    def fields(i: int) -> Fields:
        try:
            image, label = data[i]
            return {"png": png_bytes(upright(image)), "cls": str(int(label)).encode()}
        except OSError as error:  # a damaged file, or an image of a kind that png does not store
            raise DataError(f"torchvision's {name}: sample {i} cannot become png: {error}") from None
        except (AttributeError, TypeError, ValueError):
            raise DataError(f"torchvision's {name} does not give pairs of an image and a class number") from None

    labels = getattr(data, "targets", None)
    return PackSplit(len(data), fields, None if labels is None else [int(label) for label in labels])
