"""The arrays of an npz become fields, with a note for each guess, or are refused."""

import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from shard_making import npy, pixels, read_split

from mvssl.data.packing import pack
from mvssl.errors import DataError


def made(tmp_path: Path, **arrays) -> str:
    np.savez(tmp_path / "set.npz", **arrays)
    return str(tmp_path / "set.npz")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, bool])
def test_images_with_channels_last_are_turned_whatever_their_type(tmp_path, dtype):
    x = (pixels(0, 6, 5, 4, 3) > 128).astype(dtype)
    packed = pack(made(tmp_path, x=x, id=np.arange(6)), tmp_path / "out", val=0)
    for sample in read_split(tmp_path / "out", x="x.npy", id="id.npy"):
        assert np.array_equal(sample["x"], x[int(sample["id"])].transpose(2, 0, 1))
    assert any("[n, h, w, c]" in note for note in packed.notes)


@pytest.mark.parametrize("shape", [(6, 3, 20, 3), (6, 32, 32, 13), (6, 1, 9, 3)])
def test_shapes_that_could_be_either_are_refused_with_advice(tmp_path, shape):
    with pytest.raises(DataError, match="channels_last: true"):
        pack(made(tmp_path, x=np.zeros(shape, np.float32)), tmp_path / "out")


@pytest.mark.parametrize("shape", [(6, 3, 20, 20), (6, 13, 32, 32), (6, 9, 128), (6, 9), (6,), (6, 4, 4, 4)])
def test_shapes_with_their_channels_first_stay(tmp_path, shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    packed = pack(made(tmp_path, x=x), tmp_path / "out", val=0)
    assert {sample["x"].shape for sample in read_split(tmp_path / "out", x="x.npy")} == {shape[1:]}
    assert packed.notes == []


def test_masks_of_true_and_false_are_no_black_pictures(tmp_path):
    mask = pixels(0, 6, 8, 8) > 128
    pack(made(tmp_path, x=mask, id=np.arange(6)), tmp_path / "out", val=0)
    for sample in read_split(tmp_path / "out", x="x.npy", id="id.npy"):
        assert sample["x"].dtype == np.float32  # taken as it is by an image view, where uint8 is divided by 255
        assert np.array_equal(sample["x"], mask[int(sample["id"])][None])


@pytest.mark.parametrize(
    "labels", [np.where(np.arange(8) % 2, 1, -1), np.arange(8) - 1, np.where(np.arange(8) % 2, 1.0, -1.0)]
)
def test_negative_labels_are_refused(tmp_path, labels):
    with pytest.raises(DataError, match="negative number means no label"):
        pack(made(tmp_path, x=np.zeros((8, 3)), y=labels), tmp_path / "out")


@pytest.mark.parametrize(
    ("labels", "numbers", "classes"),
    [
        (np.array(["dog", "cat", "dog"]), [1, 0, 1], ["cat", "dog"]),
        (np.array([b"dog", b"cat", b"dog"]), [1, 0, 1], ["cat", "dog"]),
        (np.array([2.0, 0.0, 1.0]), [2, 0, 1], None),
        (np.array([True, False, True]), [1, 0, 1], None),
        (np.eye(3)[[2, 0, 2]], [2, 0, 2], None),
        (np.array([[5], [3], [5]], np.uint8), [5, 3, 5], None),
        (np.array([1.0, np.nan, 0.0]), [1, None, 0], None),
    ],
)
def test_labels_become_class_numbers_as_they_are_meant(tmp_path, labels, numbers, classes):
    packed = pack(made(tmp_path, x=np.arange(3.0), y=labels), tmp_path / "out", val=0)
    found = {int(s["x"]): int(s["y"]) if "y" in s else None for s in read_split(tmp_path / "out", x="x.npy", y="cls")}
    assert [found[i] for i in range(3)] == numbers
    assert packed.classes == classes


@pytest.mark.parametrize("labels", [np.array([0.5, 2.25, 7.0]), np.zeros((3, 4), int) + np.arange(4)])
def test_numbers_that_are_no_classes_stay_a_field(tmp_path, labels):
    packed = pack(made(tmp_path, x=np.arange(3.0), y=labels), tmp_path / "out", val=0)
    assert packed.fields == {"x.npy": 3, "y.npy": 3}


def test_classes_have_the_same_numbers_in_every_split(tmp_path):
    source = made(tmp_path, x_train=np.arange(3.0), y_train=np.array(["a", "b", "c"]), x_valid=np.arange(2.0),
                  y_valid=np.array(["c", "b"]))  # fmt: skip
    packed = pack(source, tmp_path / "out")
    assert packed.samples == {"train": 3, "val": 2}
    assert packed.classes == ["a", "b", "c"]


def test_a_validation_mask_makes_no_validation_split(tmp_path):
    with pytest.raises(DataError, match=r"val has mask where train has x, y, mask.*val_mask"):
        pack(made(tmp_path, x=np.zeros(4), y=np.arange(4), mask=np.ones(4), val_mask=np.ones(4)), tmp_path / "out")


def test_texts_become_txt(tmp_path):
    packed = pack(made(tmp_path, x=np.zeros(2), place=np.array(["here", "größer"])), tmp_path / "out", val=0)
    assert packed.fields == {"x.npy": 2, "place.txt": 2}


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(4, complex), "complex128"),
        (np.zeros((4, 2, 2, 2, 2)), "4 dimensions"),
        (np.array([{}] * 4, object), "Python objects"),
        (np.zeros(4, "datetime64[s]"), "datetime64"),
    ],
)
def test_arrays_that_no_column_could_read_are_refused_by_name(tmp_path, array, message):
    with pytest.raises(DataError, match=message):
        pack(made(tmp_path, x=np.zeros(4), odd=array), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_npz_that_memory_cannot_hold_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr(np, "load", None)
    with pytest.raises(DataError, match="1,000 bytes of memory are free"):
        pack(made(tmp_path, x=np.zeros((1000, 8))), tmp_path / "out")


def test_a_header_with_a_size_beyond_the_file_is_refused(tmp_path):
    lie = npy(np.zeros(4)).replace(b"(4,), }            ", b"(4000000000000,), }")
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("x.npy", lie)
    with pytest.raises(DataError, match="32,000,000,000,000"):
        pack(str(tmp_path / "set.npz"), tmp_path / "out")


def test_arrays_become_fields_and_labels_cls(tmp_path):
    x, rgb = np.random.default_rng(0).normal(size=(20, 9, 30)), pixels(0, 20, 6, 6, 3)
    np.savez(tmp_path / "set.npz", x=x, rgb=rgb, y=np.arange(20))
    packed = pack(str(tmp_path / "set.npz"), tmp_path / "out", val=0.25)
    assert (packed.samples, packed.fields) == ({"train": 15, "val": 5}, {"x.npy": 20, "rgb.npy": 20, "cls": 20})
    for sample in read_split(tmp_path / "out", x="x.npy", rgb="rgb.npy", label="cls"):
        i = int(sample["label"])
        assert np.array_equal(sample["x"], x[i].astype(np.float32))
        assert np.array_equal(sample["rgb"], rgb[i].transpose(2, 0, 1))


def test_named_parts_of_arrays_are_splits(tmp_path):
    parts = {f"{split}_{name}": array for split, n in (("train", 5), ("val", 2), ("test", 3))
             for name, array in (("images", pixels(n, n, 4, 4)), ("labels", np.zeros((n, 1), int)))}  # fmt: skip
    np.savez(tmp_path / "medical.npz", **parts)
    assert pack(str(tmp_path / "medical.npz"), tmp_path / "m").samples == {"train": 5, "val": 2, "test": 3}
    np.savez(tmp_path / "keras.npz", x_train=pixels(0, 5, 4, 4), x_test=pixels(1, 2, 4, 4))
    assert pack(str(tmp_path / "keras.npz"), tmp_path / "k").samples == {"train": 5, "val": 2}
    assert read_split(tmp_path / "k", "val", x="x.npy")[0]["x"].shape == (1, 4, 4)


def test_names_of_arrays_are_made_fit_for_fields(tmp_path):
    names = {"a/b": "a_b.npy", "C.d;e": "c_d_e.npy", "line\nend": "line_end.npy", "größe": "größe.npy"}
    np.savez(tmp_path / "set.npz", **{name: np.full((4, 2), i) for i, name in enumerate(names)})
    assert list(pack(str(tmp_path / "set.npz"), tmp_path / "out", val=0).fields) == list(names.values())
    for i, field in enumerate(names.values()):
        assert all((sample["x"] == i).all() for sample in read_split(tmp_path / "out", x=field))
