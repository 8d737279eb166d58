import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_making import image_bytes, image_folder, labels_of, pixels

from mvssl.data import open_shards
from mvssl.data.packing import pack, pack_destination, pack_source
from mvssl.errors import DataError, OutputError, RecipeError, StorageError
from mvssl.recipe import Column, Data
from mvssl.training.preparation import pack_once


def columns(**fields) -> dict[str, Column]:
    return {name: Column.model_validate({"field": field}) for name, field in fields.items()}


def test_packing_twice_gives_the_same_bytes_and_another_seed_another_order(tmp_path):
    for name, seed in [("a", 0), ("b", 0), ("c", 1)]:
        pack("digits", tmp_path / name, seed=seed)
    a, b, c = ((tmp_path / name / "train/000000.tar").read_bytes() for name in "abc")
    assert a == b != c
    order = labels_of(tmp_path / "a", "train")
    assert order != sorted(order)
    assert sorted(order) == sorted(labels_of(tmp_path / "c", "train"))


def test_folders_of_classes_keep_their_files_and_a_share_of_every_class(tmp_path):
    shown = {f"{name}/{name}{i}.png": pixels(10 * k + i) for k, name in enumerate("xyz") for i in range(10)}
    packed = pack(str(image_folder(tmp_path / "set", shown)), tmp_path / "out", val=0.2, per_shard=7)
    assert (packed.samples, packed.classes) == ({"train": 24, "val": 6}, ["x", "y", "z"])
    assert packed.shards == {"train": 4, "val": 1}
    assert (tmp_path / "out/classes.txt").read_text() == "x\ny\nz\n"
    assert sorted(labels_of(tmp_path / "out", "val")) == [0, 0, 1, 1, 2, 2]
    for split in ("train", "val"):
        names = dict(line.split("\t") for line in (tmp_path / f"out/{split}/names.tsv").read_text().splitlines())
        source = open_shards(f"{split}/*.tar", tmp_path / "out", columns(image="png", label="cls"))
        for i in range(len(source)):
            file = Path(names[source.key(i)])
            assert file.parent.name == "xyz"[int(source[i]["label"])]
            assert np.array_equal(source[i]["image"].transpose(1, 2, 0), np.asarray(Image.open(file)))


def test_folders_that_could_be_classes_or_sensors_are_refused(tmp_path):
    set_ = image_folder(
        tmp_path / "set", {f"{side}/{i}.png": pixels(i) for side in ("left", "right") for i in range(4)}
    )
    with pytest.raises(RecipeError, match=r"pairs:.*classes:"):
        pack(str(set_), tmp_path / "out")
    assert pack(f"pairs:{set_}", tmp_path / "p", val=0).fields == {"left.png": 4, "right.png": 4}
    assert pack(f"classes:{set_}", tmp_path / "c", val=0).fields == {"png": 8, "cls": 8}


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


class TouchesOnLoad:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_unusable_sources_are_refused_and_name_what_is_accepted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "objects.npz", x=np.array([TouchesOnLoad()], object))
    np.savez(tmp_path / "uneven.npz", x=np.zeros(3), y=np.zeros(4))
    (tmp_path / "broken.npz").write_bytes(pickle.dumps(TouchesOnLoad()))
    np.savez(tmp_path / "intact.npz", x=np.zeros((9, 30)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "intact.npz").read_bytes()[:-50])
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


def test_a_percent_sign_in_the_path_is_kept(tmp_path):
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


def test_every_file_has_one_line_of_names_whatever_it_is_called(tmp_path):
    odd = ["tab\there", "line\nend", "back\\slash", "next\x85line", "grün", os.fsdecode(b"latin-\xfc")]
    shown = {f"{name}/{name}.png": pixels(i) for i, name in enumerate(odd)}
    pack(str(image_folder(tmp_path / "set", shown)), tmp_path / "out", val=0)
    lines = (tmp_path / "out/train/names.tsv").read_text().splitlines()
    listed = {Path(line.split("\t")[1]).stem for line in lines}
    assert listed == {r"tab\there", r"line\nend", r"back\\slash", r"next\x85line", "grün", r"latin-\udcfc"}
    assert sorted(listed) == sorted((tmp_path / "out/classes.txt").read_text().splitlines())


def test_two_packs_at_once_keep_one_and_fail_the_other(tmp_path, monkeypatch):
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
