"""Which layers there are."""

from unittest.mock import Mock

import pytest
import torch

from mvssl.encoders import Features
from mvssl.errors import RecipeError
from mvssl.evaluate.layers import at_layer


class Model:
    """Objectives by label; those of the labels in `known` say what they compare."""

    def __init__(self, **known):
        self.labels = ["plain", *known]
        self.objective = [object(), *(Mock(**{"represent.return_value": x}) for x in known.values())]


def test_a_layer_that_does_not_exist_is_refused_with_those_that_do():
    features = Features((torch.zeros(2, 4, 3, 3), torch.zeros(2, 8, 1, 1)), torch.zeros(2, 8))
    assert at_layer(Model(), "a", features, "0").shape == (2, 36)
    for layer in ("head", "2", "-1", "fc"):
        with pytest.raises(RecipeError, match=r"accepted: vector, 0, 1\)"):
            at_layer(Model(), "a", features, layer)


def test_a_head_is_that_of_the_first_objective_that_has_one_or_of_the_objective_named():
    model, features = Model(cmc="c", mib="m"), Features((), torch.zeros(2, 8))
    found = {layer: at_layer(model, "a", features, layer) for layer in ("head", "head:cmc", "head:mib")}
    assert found == {"head": "c", "head:cmc": "c", "head:mib": "m"}
    with pytest.raises(RecipeError, match=r"accepted: vector, head, head:cmc, head:mib\)"):
        at_layer(model, "a", features, "head:plain")
