"""The benchmark of draws: it times the same draws that training makes, and other libraries draw as many."""

import json

import pytest
import torch

from mvssl.bench.inputs import drawing


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)  # for the tests that follow


def test_every_batch_has_its_rows_and_the_parts_name_the_bottleneck(small, tmp_path):
    file = tmp_path / "draws.json"
    result = drawing.bench_draws(batches=(2, 3), rounds=1, block=1e-4, json_file=file)
    assert [row["what"] for row in result["rows"]] == [
        "batch 2: draw", "batch 2: receive", "batch 3: draw", "batch 3: receive"
    ]  # fmt: skip
    assert set(result["rows"][0]["seconds"]) == {"ours", "kornia", "torchvision"}
    assert max(result["parts"], key=result["parts"].__getitem__) in result["bottleneck"]
    assert json.loads(file.read_text())["rows"] == json.loads(json.dumps(result["rows"]))


def test_other_libraries_draw_as_many_parameters():
    samples = drawing.draw_with_torchvision(3)()
    assert len(samples) == 3 * drawing.VIEWS
    views = drawing.draw_with_kornia(3)()
    assert len(views) == drawing.VIEWS
    names = [step.name.split("_")[0] for step in views[0]]
    assert names == [
        "RandomResizedCrop",
        "RandomHorizontalFlip",
        "ColorJitter",
        "RandomGrayscale",
        "RandomGaussianBlur",
    ]
    assert views[0][0].data["batch_prob"].shape == torch.Size([3])
