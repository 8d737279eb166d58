"""The phases of a start add up to its CPU time, and a recipe that cannot start is reported."""

import pytest

from mvssl.bench.processes.start import bench_start
from mvssl.errors import RecipeError


def test_the_phases_add_up_to_the_time_until_the_first_step(recipe):
    result = bench_start(recipe, rounds=1)
    whole, *phases = result["rows"]
    assert whole["seconds"]["ours"] == pytest.approx(sum(result["phases"].values()))
    assert len(phases) == len(result["phases"]) == 8
    assert whole["beside"] == "torch and timm imported"


def test_a_recipe_that_cannot_start_is_reported(recipe):
    wrong = recipe.model_copy(update={"data": recipe.data.model_copy(update={"batch_size": 10**6})})
    with pytest.raises(RecipeError, match="did not start"):
        bench_start(wrong, rounds=1)
