import numpy as np
import pytest
import torch
from PIL import Image
from shard_making import pixels
from torch.utils.data import Subset

from mvssl.data import DatasetSource, SampleError, as_source, loader, sequential_loader
from mvssl.errors import DataError, RecipeError


class Dataset:
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def item(i: int) -> dict:
    return {
        "pil": Image.fromarray(pixels(i, 6, 5, 3)),
        "tensor": torch.full((3, 6, 5), i / 10),
        "half": torch.full((2,), float(i), dtype=torch.bfloat16),
        "array": np.full((9, 20), i, np.float64),
        "label": i,
        "share": i / 2,
        "path": f"/data/{i}.png",
    }


def test_images_tensors_arrays_and_numbers_become_columns_but_not_text():
    source = DatasetSource(Dataset([item(i) for i in range(12)]))
    assert source.shapes == {
        "pil": (3, 6, 5),
        "tensor": (3, 6, 5),
        "half": (2,),
        "array": (9, 20),
        "label": (),
        "share": (),
    }
    (batch,) = sequential_loader(source, batch_size=12)
    types = {name: column.dtype for name, column in batch.columns.items()}
    floats = dict.fromkeys(("tensor", "half", "array", "share"), torch.float32)
    assert types == {"pil": torch.uint8, "label": torch.int64, **floats}
    assert batch.columns["label"].tolist() == list(range(12))
    assert np.array_equal(batch.columns["pil"][3].permute(1, 2, 0), pixels(3, 6, 5, 3))
    assert torch.equal(batch.columns["tensor"][4], torch.full((3, 6, 5), 0.4))


def test_a_dataset_goes_straight_into_the_loader():
    batches = list(loader(Dataset([item(i) for i in range(12)]), batch_size=4, seed=0, stop_step=3, workers=2))
    assert sorted(torch.cat([batch.columns["label"] for batch in batches]).tolist()) == list(range(12))


def test_columns_can_be_chosen_and_a_source_stays_itself():
    source = DatasetSource(Dataset([item(0)]), columns=["label"])
    assert list(source.columns) == ["label"]
    assert as_source(source) is source


def test_an_absent_column_is_bad_or_masked():
    items = [{"a": float(i), "b": float(i)} if i != 3 else {"a": 3.0, "b": None} for i in range(9)]
    with pytest.raises(SampleError, match="lacks"):
        DatasetSource(Dataset(items))[3]
    (batch,) = sequential_loader(DatasetSource(Dataset(items), missing="mask"), batch_size=9)
    assert batch.present["b"].tolist() == [i != 3 for i in range(9)]


def test_values_that_are_not_finite_are_bad():
    items = [{"a": np.zeros(3)} for _ in range(20)]
    items[5] = {"a": np.array([0, np.nan, 0])}
    with pytest.raises(SampleError, match="NaN"):
        DatasetSource(Dataset(items))[5]


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        (Dataset([(1, 2)]), DataError, "must be dicts"),
        (Dataset([]), DataError, "empty"),
        (Dataset([{"a": "text"}]), DataError, "no numbers"),
        (iter([]), RecipeError, "map-style"),
    ],
)
def test_other_datasets_than_of_dicts_are_refused(dataset, error, message):
    with pytest.raises(error, match=message):
        DatasetSource(dataset)


def test_an_unknown_column_lists_what_there_is():
    with pytest.raises(DataError, match="hold label, not image"):
        DatasetSource(Dataset([{"label": 1, "image": None}]), columns=["label", "image"])


def test_the_fingerprint_differs_between_subsets_and_not_between_readings():
    full = Dataset([item(i) for i in range(12)])
    first, last, again = (DatasetSource(Subset(full, rows)) for rows in (range(6), range(6, 12), range(6)))  # pyright: ignore[reportArgumentType]
    assert first.fingerprint == again.fingerprint != last.fingerprint
    assert first.fingerprint != DatasetSource(Subset(full, range(5))).fingerprint  # pyright: ignore[reportArgumentType]


def test_random_values_do_not_change_the_fingerprint_of_a_dataset():
    class Noisy(Dataset):
        def __getitem__(self, i):
            return {"x": np.random.default_rng().random(4), "label": self.items[i]}

    one, same, other = (DatasetSource(Noisy(labels)) for labels in (range(9), range(9), range(1, 10)))
    assert one.fingerprint == same.fingerprint != other.fingerprint


def test_a_dataset_may_name_itself():
    named = Dataset([item(0)])
    named.fingerprint = "scans of May"
    assert DatasetSource(named).fingerprint == "scans of May"
