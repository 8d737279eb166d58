"""Shards of either side are read by the other, with webdataset itself."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from shard_making import image_bytes, pixels
from webdataset.writer import ShardWriter

from mvssl.data import open_shards, sequential_loader
from mvssl.data.packing import pack
from mvssl.recipe import Column

# webdataset leaves its files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


def columns(**fields) -> dict[str, Column]:
    return {
        name: Column.model_validate({"field": field} if isinstance(field, str) else field)
        for name, field in fields.items()
    }


def test_our_shards_are_read_by_webdataset(tmp_path):
    pack("digits", tmp_path / "digits", per_shard=300)
    source = open_shards("digits/train/*.tar", tmp_path, columns(image="png", label="cls"))
    urls = [str(path) for path in source.paths]
    assert len(urls) == 5
    theirs = list(webdataset.WebDataset(urls, shardshuffle=False).decode("pil"))
    assert len(theirs) == len(source) == 1437
    for i in range(0, 1437, 50):
        assert theirs[i]["__key__"] == source.key(i)
        assert theirs[i]["cls"] == source[i]["label"]
        assert np.array_equal(np.asarray(theirs[i]["png"].convert("L")), source[i]["image"][0])


def test_shards_by_webdataset_are_read_by_us_alike(tmp_path):
    with ShardWriter(f"{tmp_path}/%06d.tar", maxcount=8, verbose=0) as writer:
        for i in range(20):
            signal = np.full((9, 30), i, np.float32)
            image, meta = image_bytes(pixels(i), "JPEG"), {"scene": {"classes": [i % 3, 4]}}
            writer.write({"__key__": f"run/{i:03d}", "rgb.jpg": image, "imu.npy": signal, "cls": i, "json": meta})
    asked = columns(
        rgb="rgb.jpg", imu="imu.npy", label="cls", many={"field": "json", "path": "scene.classes", "classes": 5}
    )
    source = open_shards("*.tar", tmp_path, asked)
    theirs = list(webdataset.WebDataset([str(path) for path in source.paths], shardshuffle=False).decode("rgb8"))
    (batch,) = sequential_loader(source, batch_size=20)
    assert len(theirs) == len(source) == 20
    for i, their in enumerate(theirs):
        assert their["__key__"] == source.key(i)
        assert np.array_equal(their["rgb.jpg"].transpose(2, 0, 1), batch.columns["rgb"][i])
        assert np.array_equal(their["imu.npy"], batch.columns["imu"][i])
        assert their["cls"] == batch.columns["label"][i]
        assert batch.columns["many"][i].nonzero().flatten().tolist() == sorted({*their["json"]["scene"]["classes"]})


def real(name: str) -> Path:
    root = Path(os.environ.get("MVSSL_DATA", "no such folder"))
    if not (root / name).is_dir():
        pytest.skip(f"needs {name} in MVSSL_DATA")
    return root


def test_real_shards_agree_with_webdataset():
    root = real("mnist")
    source = open_shards("mnist/val/000000.tar", root, columns(image="png", label="cls"))
    (batch,) = sequential_loader(source, batch_size=200, stop=200)
    theirs = webdataset.WebDataset([str(source.paths[0])], shardshuffle=False).decode("torchl8")
    for i, their in zip(range(200), theirs, strict=False):
        assert their["cls"] == batch.columns["label"][i]


def test_real_scenes_have_colour_depth_and_classes():
    root = real("nyuv2-160")
    label = {"field": "json", "path": "classes_present", "classes": 40}
    source = open_shards("nyuv2-160/train/*.tar", root, columns(rgb="rgb.jpg", depth="depth.png", label=label))
    assert len(source) == 795
    assert source.shapes == {"rgb": (3, 120, 160), "depth": (1, 120, 160), "label": (40,)}
    total = torch.zeros(40)
    for batch in sequential_loader(source, batch_size=400):
        assert batch.bad == []
        total += batch.columns["label"].sum(0)
    assert total[[3, 5, 35, 32]].tolist() == [
        161,
        146,
        25,
        36,
    ]  # bed, sofa, bathtub, toilet: counted by the set's maker
