"""Two runs to report on: images with labels, and one of every kind of view (image, signal, vector) without."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_runs
import webdataset
from PIL import Image

from mvssl import train
from mvssl.evaluation import evaluate
from mvssl.runs.load import load_run

NETWORK = {"name": "dim_conv32", "options": {"img_size": 8, "channels": [8, 8, 8], "hidden": 16, "code": 8}}


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """A finished run on labelled images, with its evaluation; not to be written into."""
    root = tmp_path_factory.mktemp("images")
    small_runs.write_shards(root / "train")
    (root / "classes.txt").write_text("ant\nbee\n<i>cat</i>\ndog\n")
    run = train(small_runs.recipe(root, root / "run", train__log_every=1)).folder
    evaluate(load_run(run), probes=["knn"], show=False)
    return run


@pytest.fixture
def run(images, tmp_path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(images, tmp_path / "run"))


@pytest.fixture(scope="session")
def kinds(tmp_path_factory) -> Path:
    """A finished run on an image, a signal and a vector, without labels."""
    root = tmp_path_factory.mktemp("kinds")
    (root / "train").mkdir()
    numbers = np.random.default_rng(0)
    with webdataset.TarWriter(str(root / "train" / "0.tar")) as writer:
        for key in range(40):
            image = io.BytesIO()
            Image.fromarray(numbers.integers(0, 255, (8, 8), dtype=np.uint8)).save(image, "png")
            imu, vector = numbers.normal(size=(3, 16)), numbers.normal(size=6)
            sample = {"png": image.getvalue(), "imu.npy": _npy(imu), "vector.npy": _npy(vector)}
            writer.write({"__key__": f"{key:04d}", **sample})
    fields = {"image": "png", "imu": "imu.npy", "vector": "vector.npy"}
    data = {"root": str(root), "train": "train/*.tar", "batch_size": 8, "workers": 0}
    data["columns"] = {name: {"field": field} for name, field in fields.items()}
    views = {"image": {"from": "image"}, "imu": {"from": "imu", "name": "signal"}}
    views["vector"] = {"from": "vector", "name": "vector"}
    mlp = {"name": "mlp", "options": {"widths": [16]}}
    encoder = {"image": NETWORK, "imu": mlp, "vector": mlp}
    return train(small_runs.recipe(root, root / "run", data=data, views=views, encoder=encoder, train__steps=2)).folder


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array.astype(np.float32))
    return file.getvalue()
