"""The growth of a step's cost: every value is measured, its parts add up to the step, and the picture is drawn."""

import json

import pytest

from mvssl.bench import growth
from mvssl.errors import RecipeError


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(growth, "AXES", {"batch": (4, 8), "pixels": (16, 32)})
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)  # for the tests that follow


def test_the_parts_of_a_step_add_up_to_its_time(small, tmp_path):
    file = tmp_path / "growth.json"
    result = growth.bench_growth(rounds=1, steps=1, json_file=file)
    assert json.loads(file.read_text())["growth"] == result["growth"]
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    points = [point for axis in ("batch", "pixels") for point in result["growth"][axis]]
    assert [point.get("batch", point.get("pixels")) for point in points] == [4, 8, 16, 32]
    for row, point in zip(result["rows"], points, strict=True):
        assert row["seconds"]["ours"] == pytest.approx(sum(point[part] for part in growth.PARTS))


def test_the_picture_may_not_replace_the_json_file(tmp_path):
    with pytest.raises(RecipeError, match=r"\.json"):
        growth.bench_growth(json_file=tmp_path / "growth.png")
