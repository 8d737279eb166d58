"""Planned probes and their options, and what is refused before anything is computed."""

import pytest

from mvssl.errors import RecipeError
from mvssl.evaluation.plan import plan_probes
from mvssl.recipe import Evaluate


def test_a_recipe_gives_keywords_to_the_probes_that_it_names():
    table = Evaluate(options={"knn": {"k": 200}, "fewlabel": {"c": 1}}, shots=[1, 5])
    planned = plan_probes(table, ["knn", "fewlabel"], "vector")
    options = {(each.name, each.options.get("shots")): each.options for each in planned}
    assert options[("knn", None)] == {"k": 200}
    assert options[("fewlabel", 5)] == {"shots": 5, "draws": 20, "c": 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kn": {}}, r"evaluate.options: no probe 'kn'; did you mean 'knn'"),
        ({"knn": {"neighbours": 5}}, r"evaluate.options.knn.neighbours: unknown key.*accepted: k, temperature"),
        ({"knn": {"k": 0}}, r"evaluate.options.knn.k: expected a number greater than 0"),
        ({"fewlabel": {"shots": 3}}, r"evaluate.options.fewlabel.shots: unknown key"),  # evaluate.shots says that
        ({"linear": {"seed": 3}}, r"evaluate.options.linear.seed: unknown key"),  # and --seed that
    ],
)
def test_unknown_and_already_decided_options_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        plan_probes(Evaluate(options=options), ["knn"], "vector")
