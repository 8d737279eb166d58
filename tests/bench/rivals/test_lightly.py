"""The loop beside lightly's SimCLR; its own steps are those of `mvssl bench rivals`."""

import importlib.util

import pytest

from mvssl.bench.rivals.lightly import bench_lightly
from mvssl.errors import RecipeError
from mvssl.recipe import Column

needs_lightly = pytest.mark.skipif(importlib.util.find_spec("lightly") is None, reason="lightly is not installed")


@needs_lightly
@pytest.mark.filterwarnings("ignore")  # of lightly's own imports
def test_loop_and_bare_model_are_measured_beside_those_of_lightly(recipe):
    colour = {"columns": {"image": Column(field="png", mode="rgb")}}
    changed = recipe.model_copy(update={"data": recipe.data.model_copy(update=colour)})
    result = bench_lightly(changed, rounds=1, block=0.0, steps=1)
    assert [row["beside"] for row in result["rows"]] == ["lightly's SimCLR"] * 3
    assert all(row["ratio"] > 0 for row in result["rows"])


def test_a_recipe_with_other_views_is_refused(recipe):
    views = {name: view.model_copy(update={"count": 3}) for name, view in recipe.views.items()}
    with pytest.raises(RecipeError, match="count: 2"):
        bench_lightly(recipe.model_copy(update={"views": views}))
