"""A recipe beside other methods: its curve, and recipes that the other methods cannot follow."""

import itertools

import pytest

from mvssl.bench import bench_rivals
from mvssl.errors import RecipeError
from mvssl.recipe import Column


@pytest.fixture
def labelled(recipe, monkeypatch):
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)  # for the tests that follow
    changes = {"val": "digits/val/*.tar", "label": Column(field="cls")}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)})


def test_every_method_has_all_points_of_its_curve(labelled, tmp_path):
    result = bench_rivals(labelled, minutes=0.01, methods=("ours",), neighbours=64, json_file=tmp_path / "rivals.json")
    points = result["curves"]["ours"]
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
def test_a_recipe_that_others_cannot_follow_is_refused(labelled, changes, message):
    tables = {name: getattr(labelled, name).model_copy(update=values) for name, values in changes.items()}
    with pytest.raises(RecipeError, match=message):
        bench_rivals(labelled.model_copy(update=tables))
