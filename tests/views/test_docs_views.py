"""docs/views.md: it names every option of every built-in view, and its examples run."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from mvssl.random import Draws
from mvssl.recipe import View as ViewTable
from mvssl.recipe.options import options_of
from mvssl.views import VIEWS, build_views

PAGE = (Path(__file__).parents[2] / "docs" / "views.md").read_text()


def section(name: str) -> str:
    if name == "image":
        return PAGE[: PAGE.index("## Signals and vectors")]
    return PAGE.partition(f"`name: {name}` takes")[2].partition("`name: ")[0]


@pytest.mark.parametrize("name", VIEWS)
def test_the_page_names_every_option_of_a_view(name):
    assert [option for option in options_of(VIEWS[name]).model_fields if f"`{option}`" not in section(name)] == []


def example(start: str) -> str:
    """The first block of code of that beginning."""
    return next(code for code in re.findall(r"```\w+\n(.*?)```", PAGE, re.DOTALL) if code.startswith(start))


def test_the_example_of_a_users_view_builds_draws_and_is_shown(tmp_path, monkeypatch):
    (tmp_path / "my_views.py").write_text(example("# my_views.py"))
    monkeypatch.syspath_prepend(tmp_path)
    [table] = [code for code in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "my_views:Speckle" in code]
    tables = {name: ViewTable.model_validate(view) for name, view in yaml.safe_load(table)["views"].items()}
    views = build_views(tables, {"sar": (2, 4, 4)})
    assert views.names == ["sar_0", "sar_1"]
    x = views.view("sar")(torch.rand(3, 2, 4, 4), Draws(0, torch.arange(3)))
    assert x.shape == (3, 2, 4, 4)
    assert views.view("sar").to_rgb(x).shape == (3, 3, 4, 4)


def test_the_example_without_a_recipe_file_runs():
    made = {}
    exec(example("import torch\nfrom mvssl.data"), made)
    assert {name: tuple(x.shape) for name, x in made["seen"].items()} == {"L": (8, 1, 32, 32), "ab": (8, 2, 32, 32)}
    assert made["clean"].keys() == {"L", "ab"}
