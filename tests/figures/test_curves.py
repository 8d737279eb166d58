"""Figures of a run: what is in its metrics is in them."""

import json
from pathlib import Path

import pytest
import tiny

from mvssl.figures import curves
from mvssl.recipe import to_yaml


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(to_yaml(tiny.recipe(tmp_path, tmp_path)))
    return tmp_path


def write(run: Path, *lines: dict) -> None:
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_each_bound_has_a_chart_with_training_held_out_and_ceiling(run):
    write(
        run,
        {"step": 0, "val/loss": 4.0, "val/bound/a-b": 0.0, "val/ceiling/a-b": 2.0},
        {"step": 5, "loss": 3.0, "bound/a-b": 1.0, "ceiling/a-b": 2.0, "bound/a-c": 0.5, "lr": 0.1},
        {"step": 10, "loss": 2.0, "bound/a-b": 1.5, "ceiling/a-b": 2.0, "bound/a-c": 0.7, "lr": 0.1},
        {"step": 10, "val/loss": 3.5, "val/bound/a-b": 1.2, "val/ceiling/a-b": 2.0},
    )
    figure = curves.curves(run)
    assert figure is not None
    charts = {axis.get_title(): axis.get_lines() for axis in figure.axes if axis.get_visible()}
    assert list(charts) == ["loss", "a-b", "a-c"]
    lines = {line.get_label(): line.get_xydata().tolist() for line in charts["a-b"]}
    assert lines == {
        "training": [[5, 1.0], [10, 1.5]],
        "held out": [[0, 0.0], [10, 1.2]],
        "ceiling": [[5, 2.0], [10, 2.0]],
    }


@pytest.mark.parametrize("label", ["", "mib/"])
def test_the_plane_has_a_point_for_each_check_and_its_beta(run, label):
    points = {0: (3.0, 5.0, 0.5, 0.001), 100: (2.0, 2.1, 1.5, 0.1)}
    names = (f"val/{label}plane/xz", f"val/{label}plane/xz_upper", f"val/{label}plane/zy", f"{label}beta")
    write(run, *({"step": step, **dict(zip(names, values, strict=True))} for step, values in points.items()))
    figure = curves.plane(run)
    assert figure is not None
    axis = figure.axes[0]
    assert axis.collections[-1].get_offsets().tolist() == [[3.0, 0.5], [2.0, 1.5]]
    assert [text.get_text() for text in axis.texts] == ["step 0, beta 0.001", "step 100, beta 0.1"]


def test_what_was_not_measured_is_not_drawn(run):
    write(run, {"step": 1, "loss": 1.0, "lr": 0.1})
    assert curves.plane(run) is None
    assert [file.name for file in curves.save(run)] == ["curves.png"]
    write(run)
    assert curves.save(run) == []
