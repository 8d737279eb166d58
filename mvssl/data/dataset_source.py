"""Any map-style Python dataset of dicts as a source."""

import hashlib
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mvssl.data.batch import Sample, common_spec, require_spec
from mvssl.data.decoding.arrays import channels_unclear
from mvssl.data.decoding.fields import prepare_array, require_finite
from mvssl.data.decoding.images import image_array
from mvssl.data.decoding.text_fields import to_numbers
from mvssl.data.sample_errors import SampleError
from mvssl.data.source import Source
from mvssl.errors import DataError, RecipeError
from mvssl.recipe.schema import Column

_PROBES = 9  # items that are read to learn what a column looks like


@runtime_checkable
class MapStyle(Protocol):
    """A dataset that `DatasetSource` accepts: `dataset[i]` is a dict, `len(dataset)` the number of samples.

    It may also be `Named`.
    """

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Any: ...


@runtime_checkable
class Named(Protocol):
    """A dataset with a `fingerprint`: a string that identifies its data. It replaces a hash of nine items."""

    fingerprint: str


class DatasetSource(Source):
    """A dataset whose items are dicts of arrays, tensors ([c, h, w]), PIL images and numbers, as a source.

    `columns` lists the keys to keep. By default, every key that holds numbers is kept. With `missing="mask"` an item
    may lack a key or hold None. An item that raises an exception is a bad sample. Raise `RecipeError` if
    `dataset` is not map-style, `DataError` if it is empty or its items hold no such columns.
    """

    def __init__(
        self, dataset: MapStyle, columns: list[str] | None = None, missing: Literal["mask", "error"] = "error"
    ):
        if not isinstance(dataset, MapStyle):
            raise RecipeError(f"{type(dataset).__name__} has no len() or no [i]; a map-style dataset is needed")
        if not len(dataset):
            raise DataError(f"{type(dataset).__name__} is empty")
        self._dataset, self._missing, self.dropped = dataset, missing, 0
        arrays = self._probe(columns)
        self.specs = {name: common_spec(name, probes) for name, probes in arrays.items()}
        self.columns = {name: Column.model_validate({"field": name}) for name in self.specs}
        self.optional = set(self.specs) if missing == "mask" else set()
        name = dataset.fingerprint if isinstance(dataset, Named) else None
        self.fingerprint = str(name or self._fingerprint(arrays, self._probe(columns)))

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, i: int) -> Sample:
        try:
            item = self._dataset[i]
        except Exception as error:  # whatever the user's code raises
            raise SampleError(f"{type(error).__name__}: {error}", where=f"sample {i}") from error
        present = {name: item[name] for name in self.specs if name in item and item[name] is not None}
        absent = [name for name in self.specs if name not in present]
        if absent and (self._missing == "error" or not present):
            raise SampleError("the item lacks it", absent[0], f"sample {i}")
        return {name: require_spec(name, to_array(name, value), self.specs[name]) for name, value in present.items()}

    def key(self, i: int) -> str:
        return str(i)

    def shard(self, i: int) -> str:
        return type(self._dataset).__name__

    def _probe(self, columns: list[str] | None) -> dict[str, list[np.ndarray]]:
        """Return the columns of nine samples, evenly spaced over the dataset."""
        arrays: dict[str, list[np.ndarray]] = {name: [] for name in columns or ()}
        failed: Exception | None = None
        for i in sorted({round(place * (len(self) - 1) / (_PROBES - 1)) for place in range(_PROBES)}):
            try:
                item = self._dataset[i]
            except Exception as error:  # the loader meets bad samples again, and counts them
                failed = failed or error
                continue
            if not isinstance(item, dict):
                raise DataError(
                    f"item {i} of {type(self._dataset).__name__} is a {type(item).__name__}; "
                    'items must be dicts, for example {"image": image, "label": 3}'
                )
            for name, value in item.items():
                if (columns is None or name in arrays) and value is not None:
                    try:
                        arrays.setdefault(name, []).append(to_array(name, value))
                    except SampleError:
                        if columns is not None:
                            raise
        found = {name: probes for name, probes in arrays.items() if probes}
        absent = [name for name in columns or () if name not in found]
        if not found or absent:
            holds, wanted = ", ".join(found) or "no numbers", ", ".join(absent) or "images, arrays or numbers"
            raise DataError(f"the items of {type(self._dataset).__name__} hold {holds}, not {wanted}") from failed
        return found

    def _fingerprint(self, first: dict[str, list[np.ndarray]], second: dict[str, list[np.ndarray]]) -> str:
        """Return a hash of items that were read twice. Values that differ are random, and are not hashed."""
        digest = hashlib.blake2b(f"{type(self._dataset).__qualname__}[{len(self)}]".encode(), digest_size=16)
        for name, arrays in sorted(first.items()):
            again = second.get(name, [])
            equal = len(arrays) == len(again) and all(map(np.array_equal, arrays, again))
            digest.update(f" {name}".encode())
            for array in arrays if equal else ():
                digest.update(f"{array.shape} {array.dtype}".encode() + array.tobytes())
        return digest.hexdigest()


def to_array(name: str, value: Any) -> np.ndarray:
    """Return an array, tensor, PIL image or number as the array that a batch stores. Raise `SampleError`."""
    column = Column.model_validate({"field": name, "channels_last": False})
    if isinstance(value, Tensor):
        value = (value.float() if value.dtype == torch.bfloat16 else value).detach().cpu().numpy()
    if isinstance(value, np.ndarray) and (unclear := channels_unclear(value.shape)):
        raise SampleError(f"{unclear}; turn it (x.transpose(2, 0, 1), x.T) or give a PIL image", name)
    try:
        if isinstance(value, Image.Image):
            return require_finite(image_array(column, value))
        return require_finite(
            prepare_array(column, value) if isinstance(value, np.ndarray) else to_numbers(column, value)
        )
    except SampleError as error:
        raise SampleError(error.reason, name) from None


def as_source(data: Source | MapStyle) -> Source:
    """Return `data` if it is a source, else the dataset wrapped in `DatasetSource`."""
    return data if isinstance(data, Source) else DatasetSource(data)
