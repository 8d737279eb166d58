import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image
from shard_making import image_bytes, pcm, pixels

from mvssl.data import open_shards, verify_shards
from mvssl.data.packing import pack, pack_destination, pack_source
from mvssl.data.shards.index import scan_shard
from mvssl.errors import DataError, OutputError, RecipeError, StorageError
from mvssl.recipe import Column, Data
from mvssl.training.preparation import pack_once


def columns(**fields) -> dict[str, Column]:
    return {name: Column.model_validate({"field": field}) for name, field in fields.items()}


def everything(folder: Path, split: str, **fields) -> list[dict[str, np.ndarray]]:
    source = open_shards(f"{split}/*.tar", folder, columns(**fields), missing="mask")
    return [source[i] for i in range(len(source))]


def labels(folder: Path, split: str) -> list[int]:
    return [int(sample["label"]) for sample in everything(folder, split, label="cls")]


def folder_of(root: Path, files: dict[str, np.ndarray]) -> Path:
    for name, array in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(root / name)
    return root


def test_digits_are_packed_once_each_in_fixed_stratified_splits(tmp_path):
    packed = pack("digits", tmp_path / "digits")
    assert (packed.samples, packed.fields) == ({"train": 1437, "val": 360}, {"png": 1797, "cls": 1797})
    from sklearn.datasets import load_digits

    images, truth = load_digits(return_X_y=True)
    found = [s for split in ("train", "val") for s in everything(tmp_path / "digits", split, image="png", label="cls")]
    assert {s["image"].shape for s in found} == {(1, 8, 8)}
    rows = sorted((*np.round(s["image"].reshape(-1) * (16 / 255)).astype(int).tolist(), int(s["label"])) for s in found)
    assert rows == sorted((*image.astype(int).tolist(), int(label)) for image, label in zip(images, truth, strict=True))
    counts = np.bincount(labels(tmp_path / "digits", "val"))
    assert counts.min() >= 34
    assert counts.max() <= 38
    assert verify_shards("digits/{train,val}", tmp_path).faults == []


def test_packing_twice_gives_the_same_bytes_and_another_seed_another_order(tmp_path):
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        pack("digits", tmp_path / name, seed=seed)
    a, b, c = ((tmp_path / name / "train/000000.tar").read_bytes() for name in "abc")
    assert a == b != c
    order = labels(tmp_path / "a", "train")
    assert order != sorted(order)
    assert sorted(order) == sorted(labels(tmp_path / "c", "train"))


def test_folders_of_classes_keep_their_files_and_a_share_of_every_class(tmp_path):
    shown = {f"{name}/{name}{i}.png": pixels(10 * k + i) for k, name in enumerate("xyz") for i in range(10)}
    packed = pack(str(folder_of(tmp_path / "set", shown)), tmp_path / "out", val=0.2, per_shard=7)
    assert (packed.samples, packed.classes) == ({"train": 24, "val": 6}, ["x", "y", "z"])
    assert packed.shards == {"train": 4, "val": 1}
    assert (tmp_path / "out/classes.txt").read_text() == "x\ny\nz\n"
    assert sorted(labels(tmp_path / "out", "val")) == [0, 0, 1, 1, 2, 2]
    for split in ("train", "val"):
        names = dict(line.split("\t") for line in (tmp_path / f"out/{split}/names.tsv").read_text().splitlines())
        source = open_shards(f"{split}/*.tar", tmp_path / "out", columns(image="png", label="cls"))
        for i in range(len(source)):
            file = Path(names[source.key(i)])
            assert file.parent.name == "xyz"[int(source[i]["label"])]
            assert np.array_equal(source[i]["image"].transpose(1, 2, 0), np.asarray(Image.open(file)))


def test_flat_folders_have_no_labels_and_keep_their_splits(tmp_path):
    shown = {f"train/{i}.jpg": pixels(i) for i in range(6)} | {f"val/{i}.jpg": pixels(i) for i in range(6, 8)}
    packed = pack(str(folder_of(tmp_path / "set", shown)), tmp_path / "out")
    assert (packed.samples, packed.fields, packed.classes) == ({"train": 6, "val": 2}, {"jpg": 8}, None)
    (index,) = [scan_shard(path) for path in (tmp_path / "out/val").glob("*.tar")]
    whole = (tmp_path / "out/val/000000.tar").read_bytes()
    bodies = {whole[o : o + s] for o, s in zip(index.offsets[:, 0], index.sizes[:, 0], strict=True)}
    assert bodies == {(tmp_path / f"set/val/{i}.jpg").read_bytes() for i in (6, 7)}


def test_class_folders_of_sounds_keep_their_bytes_and_refuse_arrays(tmp_path):
    sounds = {name: pcm(2, t=20 + k)[0] for k, name in enumerate(("dog/a.wav", "dog/b.wav", "cat/c.wav"))}
    for name, content in sounds.items():
        (tmp_path / "sounds" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sounds" / name).write_bytes(content)
    packed = pack(str(tmp_path / "sounds"), tmp_path / "packed", val=0.0)
    assert (packed.fields, packed.classes) == ({"wav": 3, "cls": 3}, ["cat", "dog"])
    column = Column(field="wav", rate=8000, length=20)
    source = open_shards("train/*.tar", tmp_path / "packed", {"sound": column, "label": Column(field="cls")})
    assert sorted(int(source[i]["label"]) for i in range(3)) == [0, 1, 1]
    np.save(tmp_path / "sounds" / "cat" / "d.npy", np.zeros(3))
    with pytest.raises(DataError, match="wav and npy files beside one another"):
        pack(str(tmp_path / "sounds"), tmp_path / "again")


def test_train_and_test_folders_of_classes_share_their_numbers(tmp_path):
    shown = {
        f"{split}/{name}/{name}.png": pixels(0) for split, names in (("train", "abc"), ("test", "ac")) for name in names
    }
    pack(str(folder_of(tmp_path / "set", shown)), tmp_path / "out")
    assert sorted(labels(tmp_path / "out", "train")) == [0, 1, 2]
    assert sorted(labels(tmp_path / "out", "val")) == [0, 2]


def test_mixed_and_other_formats_become_one_field_without_loss(tmp_path):
    shown = {f"{i}.{suffix}": pixels(i) for i, suffix in enumerate(["png", "bmp", "tif", "png"])}
    packed = pack(str(folder_of(tmp_path / "set", shown)), tmp_path / "out", val=0)
    assert packed.fields == {"png": 4}
    found = {sample["image"].tobytes() for sample in everything(tmp_path / "out", "train", image="png")}
    assert found == {pixels(i).transpose(2, 0, 1).tobytes() for i in range(4)}


def test_sensor_folders_are_paired_by_stem(tmp_path):
    for i in range(6):
        folder_of(tmp_path / "set", {f"rgb/scene.{i}.jpg": pixels(i)})
        if i != 4:
            folder_of(tmp_path / "set", {f"Depth/scene.{i}.tif": np.full((5, 5), 1000 + i, np.uint16)})
        (tmp_path / "set/label").mkdir(exist_ok=True)
        (tmp_path / f"set/label/scene.{i}.txt").write_text(str(i))
    packed = pack(str(tmp_path / "set"), tmp_path / "out", val=0)
    assert packed.samples == {"train": 6}
    assert packed.fields == {"rgb.jpg": 6, "depth.npy": 5, "label.txt": 6}
    for sample in everything(tmp_path / "out", "train", rgb="rgb.jpg", depth="depth.npy", label="label.txt"):
        i = int(sample["label"])
        assert ("depth" in sample) == (i != 4)
        assert i == 4 or (sample["depth"] == 1000 + i).all()
    assert "scene.4" in (tmp_path / "out/train/names.tsv").read_text()


def test_folders_that_could_be_classes_or_sensors_ask_which(tmp_path):
    set_ = folder_of(tmp_path / "set", {f"{side}/{i}.png": pixels(i) for side in ("left", "right") for i in range(4)})
    with pytest.raises(RecipeError, match=r"pairs:.*classes:"):
        pack(str(set_), tmp_path / "out")
    assert pack(f"pairs:{set_}", tmp_path / "p", val=0).fields == {"left.png": 4, "right.png": 4}
    assert pack(f"classes:{set_}", tmp_path / "c", val=0).fields == {"png": 8, "cls": 8}


def test_arrays_become_fields_and_labels_cls(tmp_path):
    x, rgb = np.random.default_rng(0).normal(size=(20, 9, 30)), pixels(0, 20, 6, 6, 3)
    np.savez(tmp_path / "set.npz", x=x, rgb=rgb, y=np.arange(20))
    packed = pack(str(tmp_path / "set.npz"), tmp_path / "out", val=0.25)
    assert (packed.samples, packed.fields) == ({"train": 15, "val": 5}, {"x.npy": 20, "rgb.npy": 20, "cls": 20})
    for sample in everything(tmp_path / "out", "train", x="x.npy", rgb="rgb.npy", label="cls"):
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
    assert everything(tmp_path / "k", "val", x="x.npy")[0]["x"].shape == (1, 4, 4)


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
        s["image"].tobytes(): int(s["label"]) for s in everything(tmp_path / "out", "val", image="png", label="cls")
    }
    assert found == {pixels(100 + i).transpose(2, 0, 1).tobytes(): i % 2 for i in range(4)}


def test_torchvision_sets_that_do_not_exist_or_cannot_be_had(tmp_path, fake_set):
    with pytest.raises(RecipeError, match="did you mean 'CIFAR10'"):
        pack("torchvision:CIFAR", tmp_path / "out")

    class Offline(Fake):
        def __init__(self, root, train=True, download=False):
            raise OSError("no route to host")

    fake_set(Offline)
    with pytest.raises(DataError, match="no route to host"):
        pack("torchvision:CIFAR10", tmp_path / "out", root=tmp_path / "down")


def test_a_destination_that_holds_something_is_refused_and_untouched(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/precious").write_text("x")
    with pytest.raises(OutputError, match="exists"):
        pack("digits", tmp_path / "out")
    (tmp_path / "file").write_text("x")
    for destination in ("file", "file/below"):
        with pytest.raises(OutputError):
            pack("digits", tmp_path / destination)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "out", "precious"]


@pytest.mark.parametrize(
    ("raised", "seen"), [(KeyboardInterrupt, KeyboardInterrupt), (OSError(28, "No space"), StorageError)]
)
def test_an_interrupted_pack_leaves_nothing(tmp_path, monkeypatch, raised, seen):
    def fail(*_, **__):
        assert len(list(tmp_path.iterdir())) == 1  # half-made, aside and hidden
        assert next(tmp_path.iterdir()).name.startswith(".")
        raise raised

    monkeypatch.setattr("mvssl.data.packing.named_sets.png_bytes", fail)
    with pytest.raises(seen):
        pack("digits", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_destination_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    pack("digits", tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out")) == ["classes.txt", "train", "val"]


class Spy:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_unusable_sources_are_refused_and_name_what_is_accepted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "objects.npz", x=np.array([Spy()], object))
    np.savez(tmp_path / "uneven.npz", x=np.zeros(3), y=np.zeros(4))
    (tmp_path / "broken.npz").write_bytes(pickle.dumps(Spy()))
    np.savez(tmp_path / "whole.npz", x=np.zeros((9, 30)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:-50])
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "array.npz")
    np.savez(tmp_path / "alike.npz", **{"a.b": np.zeros(3), "x": np.zeros(3), "A.B": np.zeros(3)})
    for source, error, message in [
        ("nowhere", RecipeError, "torchvision:NAME"),
        ("empty", DataError, "no images"),
        ("pairs:empty", DataError, "no sensor folders"),
        ("objects.npz", DataError, "plain arrays"),
        ("uneven.npz", DataError, "same number"),
        ("broken.npz", DataError, "plain arrays"),
        ("cut.npz", DataError, "plain arrays"),
        ("array.npz", DataError, "plain arrays"),
        ("alike.npz", DataError, r"'a\.b' and 'A\.B' would both be the field a_b\.npy"),
        ("torchvision:VisionDataset", DataError, "VisionDataset"),
    ]:
        with pytest.raises(error, match=message):
            pack(source, tmp_path / "out")
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "out").exists()


def test_a_per_cent_sign_in_the_path_is_no_pattern(tmp_path):
    pack("digits", tmp_path / "100%d")
    assert (tmp_path / "100%d/val/000000.tar").exists()


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("digits", "digits"),
        ("torchvision:CIFAR10", "cifar10"),
        ("/scans/2024/brain.npz", "brain"),
        ("/photos/v1.2/", "v1.2"),
        ("pairs:drone/scenes", "scenes"),
    ],
)
def test_data_pack_goes_to_a_plain_name_under_the_data_folder(tmp_path, source, name):
    assert pack_destination(source, tmp_path) == tmp_path / name


def test_a_folder_is_not_packed_onto_itself(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(RecipeError, match=r"data\.root"):
        pack_destination(str(tmp_path / "photos"), tmp_path)


def test_a_recipe_packs_a_folder_once_and_then_leaves_it(tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(4):
        (tmp_path / f"photos/{i}.png").write_bytes(image_bytes(pixels(i)))
    table = Data.model_validate({"root": str(tmp_path / "data"), "pack": str(tmp_path / "photos")})
    pack_once(table)
    [shard] = (tmp_path / "data/photos/train").glob("*.tar")
    before = shard.stat().st_mtime_ns
    pack_once(table)
    assert shard.stat().st_mtime_ns == before


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"val": 1.0}, {"per_shard": 0}])
def test_numbers_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(RecipeError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        pack("digits", tmp_path / "out", **wrong)


def test_names_of_arrays_are_made_fit_for_fields(tmp_path):
    names = {"a/b": "a_b.npy", "C.d;e": "c_d_e.npy", "line\nend": "line_end.npy", "größe": "größe.npy"}
    np.savez(tmp_path / "set.npz", **{name: np.full((4, 2), i) for i, name in enumerate(names)})
    assert list(pack(str(tmp_path / "set.npz"), tmp_path / "out", val=0).fields) == list(names.values())
    for i, field in enumerate(names.values()):
        assert all((sample["x"] == i).all() for sample in everything(tmp_path / "out", "train", x=field))


def test_every_file_has_one_line_of_names_whatever_it_is_called(tmp_path):
    odd = ["tab\there", "line\nend", "back\\slash", "next\x85line", "grün", os.fsdecode(b"latin-\xfc")]
    shown = {f"{name}/{name}.png": pixels(i) for i, name in enumerate(odd)}
    pack(str(folder_of(tmp_path / "set", shown)), tmp_path / "out", val=0)
    lines = (tmp_path / "out/train/names.tsv").read_text().splitlines()
    told = {Path(line.split("\t")[1]).stem for line in lines}
    assert told == {r"tab\there", r"line\nend", r"back\\slash", r"next\x85line", "grün", r"latin-\udcfc"}
    assert sorted(told) == sorted((tmp_path / "out/classes.txt").read_text().splitlines())


def test_of_two_packs_at_once_one_is_kept_and_the_other_fails(tmp_path, monkeypatch):
    write = pack_source._write

    def slowly(*given):
        monkeypatch.setattr(pack_source, "_write", write)
        pack("digits", tmp_path / "out", seed=1)  # begun later, done first
        return write(*given)

    monkeypatch.setattr(pack_source, "_write", slowly)
    with pytest.raises(OutputError, match="out was filled by another process"):
        pack("digits", tmp_path / "out", seed=0)
    assert os.listdir(tmp_path) == ["out"]
    pack("digits", tmp_path / "first", seed=1)
    assert (tmp_path / "out/train/000000.tar").read_bytes() == (tmp_path / "first/train/000000.tar").read_bytes()
