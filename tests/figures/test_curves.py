"""Which charts the metrics of a run give: bounds, information planes, curves.png and plane.png."""

import json
from pathlib import Path

import pytest

from mvssl.figures.curves import BoundSeries, draw_curves, draw_planes, find_bound_series, find_planes, save_curves
from mvssl.runs.metric_series import Metrics, Series, build_series


def metrics_of(*keys: str) -> Metrics:
    return build_series([{"step": 1, **dict.fromkeys(keys, 0.5)}])


def test_bounds_are_found_by_pair_with_ceiling_and_held_out_value():
    keys = ["bound/a-b", "ceiling/a-b", "val/bound/a-b", "bound/x/local", "dim_1/loss", "dim_1/bound/x"]
    bounds = {one.subject: one for one in find_bound_series(metrics_of(*keys, "dim_1/ceiling/x", "val/bound/c-d"))}
    assert list(bounds) == ["a-b", "x/local", "dim_1/x", "c-d"]
    assert bounds["a-b"].held_out
    assert bounds["a-b"].ceiling
    assert not bounds["x/local"].ceiling
    assert bounds["dim_1/x"].ceiling
    assert not bounds["c-d"].training


def test_a_held_out_bound_is_a_share_of_its_own_ceiling():
    """A small data.val has fewer candidates than a batch of training."""
    one, four, two = (Series([1], [value]) for value in (1.0, 4.0, 2.0))
    assert BoundSeries("a-b", one, one, four, two).share == 0.5
    assert BoundSeries("a-b", one, None, four, None).share == 0.25
    assert BoundSeries("a-b", one, None, None, None).share is None


def test_each_bound_has_a_chart_with_training_held_out_and_ceiling():
    figure = draw_curves(build_series([
        {"step": 0, "val/loss": 4.0, "val/bound/a-b": 0.0, "val/ceiling/a-b": 2.0},
        {"step": 5, "loss": 3.0, "bound/a-b": 1.0, "ceiling/a-b": 2.0, "bound/a-c": 0.5, "lr": 0.1},
        {"step": 10, "loss": 2.0, "bound/a-b": 1.5, "ceiling/a-b": 2.0, "bound/a-c": 0.7, "lr": 0.1},
        {"step": 10, "val/loss": 3.5, "val/bound/a-b": 1.2, "val/ceiling/a-b": 2.0},
    ]))  # fmt: skip
    assert figure is not None
    charts = {axes.get_title(): axes.get_lines() for axes in figure.axes if axes.get_visible()}
    assert list(charts) == ["loss", "a-b", "a-c"]
    assert {line.get_label(): line.get_xydata().tolist() for line in charts["a-b"]} == {
        "training": [[5, 1.0], [10, 1.5]],
        "held out": [[0, 0.0], [10, 1.2]],
        "ceiling": [[5, 2.0], [10, 2.0]],
    }


@pytest.mark.parametrize("term", ["", "mib/"])
def test_the_plane_has_a_point_for_each_check_and_its_beta(term):
    points = {0: (3.0, 5.0, 0.5, 0.001, 1.0), 100: (2.0, 2.1, 1.5, 0.1, 1.0)}
    keys = (f"val/{term}plane/xz", f"val/{term}plane/xz_upper", f"val/{term}plane/zy", f"{term}beta", f"{term}loss")
    metrics = build_series([{"step": step, **dict(zip(keys, values, strict=True))} for step, values in points.items()])
    (plane,) = find_planes(metrics)
    assert plane == (term.strip("/"), [0, 100], [3.0, 2.0], [5.0, 2.1], [0.5, 1.5], {0: 0.001, 100: 0.1})
    figure = draw_planes(metrics)
    assert figure is not None
    assert figure.axes[0].get_title() == plane.term


def test_files_are_written_only_for_what_was_measured(tmp_path: Path):
    file = tmp_path / "metrics.jsonl"
    assert save_curves(tmp_path) == []
    file.write_text(json.dumps({"step": 1, "loss": 1.0, "lr": 0.1}))
    assert [written.name for written in save_curves(tmp_path)] == ["curves.png"]
    file.write_text(json.dumps({"step": 1, "loss": 1.0, "val/plane/xz": 1.0, "val/plane/zy": 1.0}))
    assert [written.name for written in save_curves(tmp_path)] == ["curves.png", "plane.png"]
