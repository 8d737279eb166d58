"""Benchmarks run, their shares sum to 1, and they record the machine; no speed is tested."""

import itertools
import json

import pytest

from mvssl.bench import bench_reader, bench_rivals, bench_train, bench_views
from mvssl.bench.train import compute_shares
from mvssl.data.packing import pack
from mvssl.errors import RecipeError
from mvssl.recipe import Column, parse_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    pack("digits", root / "digits", progress=False)
    return parse_recipe(
        {
            "data": {
                "root": str(root), "train": "digits/train/*.tar", "columns": {"image": {"field": "png"}},
                "batch_size": 16, "workers": 0,
            },
            "views": {"digit": {"from": "image", "count": 2, "size": 16}},
            "encoder": {"name": "test_resnet"},
            "objective": {"name": "cmc"},
            "train": {"steps": 1, "out": str(root / "run"), "trackers": []},
        }
    )  # fmt: skip


def test_the_loop_is_measured_against_its_own_model(recipe, tmp_path, capsys):
    found = bench_train(recipe, blocks=2, steps=4, json_file=tmp_path / "train.json")
    assert json.loads((tmp_path / "train.json").read_text()) == found
    low, high = found["ratio_spread"]
    assert 0 < low <= found["ratio"] <= high
    assert sum(found["shares"].values()) == pytest.approx(1)
    assert {"model", "data", "copy", "views", "guard", "log", "checkpoint"} == set(found["shares"])
    assert found["hardware"]["cores"] >= 1
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_counts_for_its_share_of_steps():
    assert compute_shares({"model": 3.0, "data": 1.0}, saving=1.0, step=9.0) == pytest.approx(
        {"model": 0.75 * 0.9, "data": 0.25 * 0.9, "checkpoint": 0.1}
    )


def test_views_and_reader_report_samples_per_second(recipe, tmp_path):
    views = bench_views(sizes=(8, 16), batch_size=32, seconds=0.01)
    assert all(views["sizes"][size]["samples_per_second"] > 0 for size in ("8", "16"))
    assert bench_reader(recipe, seconds=0.01)["samples_per_second"] > 0


@pytest.fixture
def labelled(recipe, monkeypatch):
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)  # for the tests that follow
    changes = {"val": "digits/val/*.tar", "label": Column(field="cls")}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)})


def test_every_method_trains_equally_long_and_has_all_points(labelled, tmp_path):
    found = bench_rivals(labelled, minutes=0.01, methods=("ours",), neighbours=64, json_file=tmp_path / "rivals.json")
    points = found["curves"]["ours"]
    assert len(points) == 8
    assert all(a["minutes"] < b["minutes"] and a["images"] < b["images"] for a, b in itertools.pairwise(points))
    assert points[-1]["minutes"] >= 0.01
    assert all(0 <= point["accuracy"] <= 1 for point in points)
    assert (tmp_path / "rivals.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"label": None}}, r"data\.label and data\.val"),
        ({"data": {"val": None}}, r"data\.label and data\.val"),
        ({"optim": {"clip": 1.0}}, r"optim\.clip"),
    ],
)
def test_a_recipe_without_a_fair_comparison_is_refused(labelled, changes, message):
    tables = {name: getattr(labelled, name).model_copy(update=values) for name, values in changes.items()}
    with pytest.raises(RecipeError, match=message):
        bench_rivals(labelled.model_copy(update=tables))
