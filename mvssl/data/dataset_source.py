"""Any map-style Python dataset of dicts as a source."""

import hashlib
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mvssl.data.batch import Sample, common_form, conform
from mvssl.data.decoding.arrays import channels_unclear
from mvssl.data.decoding.decode import settle
from mvssl.data.decoding.images import image_array
from mvssl.data.decoding.texts import numbers
from mvssl.data.sample_errors import SampleError
from mvssl.data.shard_source import ShardSource
from mvssl.errors import DataError, RecipeError
from mvssl.recipe import Column


class MapStyle(Protocol):
    """What `DatasetSource` asks of a dataset: `dataset[i]` is a dict, `len(dataset)` how many there are."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Any: ...


class DatasetSource:
    """A dataset whose items are dicts of arrays, tensors ([c, h, w]), PIL images and numbers, as a source.

    `columns` names the keys to keep; without it, every key of the first item that holds numbers. `missing="mask"` lets
    items lack a key (or hold None). What an item raises counts as a bad sample.
    """

    def __init__(
        self, dataset: MapStyle, columns: list[str] | None = None, missing: Literal["mask", "error"] = "error"
    ):
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise RecipeError(f"{type(dataset).__name__} has no len() or no [i]; a map-style dataset is needed")
        if not len(dataset):
            raise DataError(f"{type(dataset).__name__} is empty")
        self._dataset, self._missing, self.dropped = dataset, missing, 0
        arrays = self._probe(columns)
        self.forms = {name: common_form(name, given) for name, given in arrays.items()}
        self.columns = {name: Column.model_validate({"field": name}) for name in self.forms}
        self.optional = set(self.forms) if missing == "mask" else set()
        self.fingerprint = str(getattr(dataset, "fingerprint", None) or self._fingerprint(arrays, self._probe(columns)))

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, i: int) -> Sample:
        """Column -> array. Raises `SampleError`."""
        try:
            item = self._dataset[i]
        except Exception as error:  # whatever the user's code raises
            raise SampleError(f"{type(error).__name__}: {error}", where=f"sample {i}") from error
        given = {name: item[name] for name in self.forms if name in item and item[name] is not None}
        absent = [name for name in self.forms if name not in given]
        if absent and (self._missing == "error" or not given):
            raise SampleError("the item lacks it", absent[0], f"sample {i}")
        return {name: conform(name, to_array(name, value), self.forms[name]) for name, value in given.items()}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one sample of each column."""
        return {name: form.shape for name, form in self.forms.items()}

    def key(self, i: int) -> str:
        """The sample's number: a dataset has no keys."""
        return str(i)

    def shard(self, i: int) -> str:
        """The dataset's class."""
        return type(self._dataset).__name__

    def _probe(self, columns: list[str] | None) -> dict[str, list[np.ndarray]]:
        """Each column of nine samples spread over the dataset."""
        arrays: dict[str, list[np.ndarray]] = {name: [] for name in columns or ()}
        failed: Exception | None = None
        for i in sorted({round(place * (len(self) - 1) / 8) for place in range(9)}):
            try:
                item = self._dataset[i]
            except Exception as error:  # bad samples are met again, and counted, in the loader
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
        found = {name: given for name, given in arrays.items() if given}
        absent = [name for name in columns or () if name not in found]
        if not found or absent:
            holds, wanted = ", ".join(found) or "no numbers", ", ".join(absent) or "images, arrays or numbers"
            raise DataError(f"the items of {type(self._dataset).__name__} hold {holds}, not {wanted}") from failed
        return found

    def _fingerprint(self, once: dict[str, list[np.ndarray]], again: dict[str, list[np.ndarray]]) -> str:
        """One name for this data. A column that differs when read again is drawn at random: its values say nothing."""
        whole = hashlib.blake2b(f"{type(self._dataset).__qualname__}[{len(self)}]".encode(), digest_size=16)
        for name, arrays in sorted(once.items()):
            other = again.get(name, [])
            alike = len(arrays) == len(other) and all(map(np.array_equal, arrays, other))
            whole.update(f" {name}".encode())
            for array in arrays if alike else ():
                whole.update(f"{array.shape} {array.dtype}".encode() + array.tobytes())
        return whole.hexdigest()


def to_array(name: str, value: Any) -> np.ndarray:
    """An array, tensor, PIL image or number as a batch holds it. Raises `SampleError`."""
    column = Column.model_validate({"field": name, "channels_last": False})
    if isinstance(value, Tensor | np.ndarray) and (unclear := channels_unclear(tuple(value.shape))):
        raise SampleError(f"{unclear}; turn it (x.transpose(2, 0, 1), x.T) or give a PIL image", name)
    try:
        if isinstance(value, Image.Image):
            array = image_array(column, value)
        elif isinstance(value, Tensor):
            array = settle(column, (value.float() if value.dtype == torch.bfloat16 else value).detach().cpu().numpy())
        elif isinstance(value, np.ndarray):
            array = settle(column, value)
        else:
            array = numbers(column, value)
    except SampleError as error:
        raise SampleError(error.reason, name) from None
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise SampleError("some values are NaN or infinite", name)
    return array


Source = ShardSource | DatasetSource


def as_source(data: Source | MapStyle) -> Source:
    """`data` itself if it is a source, else the dataset wrapped in `DatasetSource`."""
    return data if isinstance(data, ShardSource | DatasetSource) else DatasetSource(data)
