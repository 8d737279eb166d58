import numpy as np
import pytest
from shard_making import image_folder, labels_of, pcm, pixels, read_split

from mvssl.data import open_shards
from mvssl.data.packing import pack
from mvssl.data.shards.index import scan_shard
from mvssl.errors import DataError
from mvssl.recipe import Column


def test_flat_folders_have_no_labels_and_keep_their_splits(tmp_path):
    shown = {f"train/{i}.jpg": pixels(i) for i in range(6)} | {f"val/{i}.jpg": pixels(i) for i in range(6, 8)}
    packed = pack(str(image_folder(tmp_path / "set", shown)), tmp_path / "out")
    assert (packed.samples, packed.fields, packed.classes) == ({"train": 6, "val": 2}, {"jpg": 8}, None)
    (index,) = [scan_shard(path) for path in (tmp_path / "out/val").glob("*.tar")]
    intact = (tmp_path / "out/val/000000.tar").read_bytes()
    bodies = {intact[o : o + s] for o, s in zip(index.offsets[:, 0], index.sizes[:, 0], strict=True)}
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
    pack(str(image_folder(tmp_path / "set", shown)), tmp_path / "out")
    assert sorted(labels_of(tmp_path / "out", "train")) == [0, 1, 2]
    assert sorted(labels_of(tmp_path / "out", "val")) == [0, 2]


def test_mixed_and_other_formats_become_one_field_without_loss(tmp_path):
    shown = {f"{i}.{suffix}": pixels(i) for i, suffix in enumerate(["png", "bmp", "tif", "png"])}
    packed = pack(str(image_folder(tmp_path / "set", shown)), tmp_path / "out", val=0)
    assert packed.fields == {"png": 4}
    found = {sample["image"].tobytes() for sample in read_split(tmp_path / "out", image="png")}
    assert found == {pixels(i).transpose(2, 0, 1).tobytes() for i in range(4)}


def test_sensor_folders_are_paired_by_stem(tmp_path):
    for i in range(6):
        image_folder(tmp_path / "set", {f"rgb/scene.{i}.jpg": pixels(i)})
        if i != 4:
            image_folder(tmp_path / "set", {f"Depth/scene.{i}.tif": np.full((5, 5), 1000 + i, np.uint16)})
        (tmp_path / "set/label").mkdir(exist_ok=True)
        (tmp_path / f"set/label/scene.{i}.txt").write_text(str(i))
    packed = pack(str(tmp_path / "set"), tmp_path / "out", val=0)
    assert packed.samples == {"train": 6}
    assert packed.fields == {"rgb.jpg": 6, "depth.npy": 5, "label.txt": 6}
    for sample in read_split(tmp_path / "out", rgb="rgb.jpg", depth="depth.npy", label="label.txt"):
        i = int(sample["label"])
        assert ("depth" in sample) == (i != 4)
        assert i == 4 or (sample["depth"] == 1000 + i).all()
    assert "scene.4" in (tmp_path / "out/train/names.tsv").read_text()
