"""The examples of docs/objectives.md run as they stand, and the objective written there is one."""

import re
import sys
from pathlib import Path

import pytest
import torch
from toy import WIDTHS, context, features

from mvssl.objectives import OBJECTIVES
from mvssl.recipe.options import construct, find_class, options_of

PAGE = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text()
ESTIMATORS, LOOP, OWN = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_estimators_example_prints_what_it_says(capsys):
    exec(ESTIMATORS, {})
    zero, ceiling = re.findall(r"[\d.]+\d|0", capsys.readouterr().out)
    assert float(zero) == 0
    assert float(ceiling) == pytest.approx(3.58, abs=0.01)


def test_an_objective_alone_learns_in_ones_own_loop(capsys):
    exec(LOOP, found := {})
    assert found["metrics"]["bound/rgb-depth"] > 3
    assert "bound/rgb-depth" in capsys.readouterr().out


def test_an_objective_from_another_package_is_built_by_its_import_path(tmp_path, monkeypatch):
    (tmp_path / "agree.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    made = find_class("agree:Agree", OBJECTIVES, "objective.0")
    objective = construct(made, {"spread": 2.0}, "objective.0", {"a": WIDTHS, "b": WIDTHS})
    sys.modules.pop("agree")
    seen = {view: features(6, dtype=torch.float32) for view in "ab"}
    loss, metrics = objective(seen, context(6))
    loss.backward()
    assert set(metrics) == {"apart", "flat"}
    assert seen["a"].vector.grad.abs().sum() > 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_option_of_every_objective_is_on_the_page(name):
    section = re.split(rf"\n## {name}: ", PAGE, flags=re.IGNORECASE)[1].partition("\n## ")[0]
    missing = [option for option in options_of(OBJECTIVES[name]).model_fields if f"`{option}`" not in section]
    assert not missing
