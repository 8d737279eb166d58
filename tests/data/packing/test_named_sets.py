from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image
from shard_making import pixels, read_split

from mvssl.data import verify_shards
from mvssl.data.packing import pack
from mvssl.errors import DataError, RecipeError


def labels(folder: Path, split: str) -> list[int]:
    return [int(sample["label"]) for sample in read_split(folder, split, label="cls")]


def test_digits_are_packed_once_each_in_fixed_stratified_splits(tmp_path):
    packed = pack("digits", tmp_path / "digits")
    assert (packed.samples, packed.fields) == ({"train": 1437, "val": 360}, {"png": 1797, "cls": 1797})
    from sklearn.datasets import load_digits

    images, truth = load_digits(return_X_y=True)
    found = [s for split in ("train", "val") for s in read_split(tmp_path / "digits", split, image="png", label="cls")]
    assert {s["image"].shape for s in found} == {(1, 8, 8)}
    rows = sorted((*np.round(s["image"].reshape(-1) * (16 / 255)).astype(int).tolist(), int(s["label"])) for s in found)
    assert rows == sorted((*image.astype(int).tolist(), int(label)) for image, label in zip(images, truth, strict=True))
    counts = np.bincount(labels(tmp_path / "digits", "val"))
    assert counts.min() >= 34
    assert counts.max() <= 38
    assert verify_shards("digits/{train,val}", tmp_path).faults == []


class Fake:
    """What torchvision's sets look like."""

    classes = ("cat", "dog")

    def __init__(self, root, train=True, transform=None, download=False):
        assert download
        self.targets, self.base = [0, 1] * (5 if train else 2), 0 if train else 100

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, i):
        return Image.fromarray(pixels(self.base + i)), self.targets[i]


@pytest.fixture
def fake_set(monkeypatch):
    def put(made):
        monkeypatch.setattr(torchvision.datasets, "CIFAR10", made)

    return put


def test_torchvision_sets_by_name(tmp_path, fake_set):
    fake_set(Fake)
    packed = pack("torchvision:CIFAR10", tmp_path / "out")
    assert (packed.samples, packed.classes) == ({"train": 10, "val": 4}, ["cat", "dog"])
    found = {
        s["image"].tobytes(): int(s["label"]) for s in read_split(tmp_path / "out", "val", image="png", label="cls")
    }
    assert found == {pixels(100 + i).transpose(2, 0, 1).tobytes(): i % 2 for i in range(4)}


def test_torchvision_sets_that_do_not_exist_or_load_are_refused(tmp_path, fake_set):
    with pytest.raises(RecipeError, match="did you mean 'CIFAR10'"):
        pack("torchvision:CIFAR", tmp_path / "out")

    class Offline(Fake):
        def __init__(self, root, train=True, download=False):
            raise OSError("no route to host")

    fake_set(Offline)
    with pytest.raises(DataError, match="no route to host"):
        pack("torchvision:CIFAR10", tmp_path / "out", root=tmp_path / "down")
