"""The contract of objectives: defaults, classes from other packages, and what is refused."""

import pytest
import small_features
import torch
from torch import nn
from torch.distributions import Normal

from mvssl.errors import RecipeError
from mvssl.objectives import CMC, DIM, MIB, OBJECTIVES, InfoMax, Objective, Predict, find_objective
from mvssl.objectives.base import as_objective, build_objective, choose_pairs
from mvssl.objectives.estimators import Estimator

WIDTHS = {"a": small_features.WIDTHS, "b": small_features.WIDTHS}


class Plain(nn.Module):
    """A module that does not derive from `Objective`."""

    def __init__(self, widths, *, size: float = 1.0):
        super().__init__()
        self.size = nn.Parameter(torch.tensor(size))

    def forward(self, features, context):
        return self.size * sum(f.vector.square().mean() for f in features.values()), {}


class Bottleneck(Plain):
    """A module with optional members, and an estimator of its own."""

    def __init__(self, widths):
        super().__init__(widths)
        self.scores = Estimator("jsd", [])

    def represent(self, view, features):
        return features.vector

    def posterior(self, view, features):
        return Normal(features.vector, 1.0)


def test_an_objective_without_optional_members_has_the_defaults():
    for made in (Objective, as_objective(Plain, "objective.0")):
        objective = made(WIDTHS)
        flags = objective.reads_views, objective.has_head, objective.has_posterior, objective.n_components
        assert not any(flags)
        assert objective.candidates(8) == {}
        assert objective.beta(3) is None
        with pytest.raises(RecipeError):
            objective.segments("a", small_features.features(2))


def test_a_module_of_another_class_keeps_its_weights_names_and_members():
    made = as_objective(Bottleneck, "objective.0")
    assert issubclass(made, Objective)
    assert made is as_objective(Bottleneck, "objective.1")
    objective = made(WIDTHS)
    assert list(objective.state_dict()) == ["size"]
    assert objective.has_head
    assert objective.has_posterior
    assert objective.estimator_name == "jsd"
    features = small_features.features(2)
    assert objective.represent("a", features) is features.vector
    loss, _ = objective({"a": features}, small_features.context(2))
    assert loss.shape == ()


@pytest.mark.parametrize("made", [dict, nn.Module, type("NoForward", (nn.Module,), {})])
def test_a_class_that_is_no_objective_is_refused(made):
    with pytest.raises(RecipeError, match=r"objective\.2.*mvssl\.objectives\.Objective"):
        as_objective(made, "objective.2")


class Hiding(Plain):
    """A module with a submodule that would hide a member."""

    def __init__(self, widths):
        super().__init__(widths)
        self.posterior = nn.Linear(2, 2)


class HidingBuffer(Plain):
    """A module with a buffer that torch refuses, as the class has a member of that name."""

    def __init__(self, widths):
        super().__init__(widths)
        self.register_buffer("segments", torch.zeros(1))


class HidingNumber(Plain):
    """A module with a number where the contract has a method."""

    def __init__(self, widths):
        super().__init__(widths)
        self.candidates = 5


def test_options_that_do_not_fit_and_hidden_members_are_refused():
    assert build_objective(as_objective(Plain, "objective.0"), {"size": 2.0}, "objective.0", WIDTHS).size == 2
    with pytest.raises(RecipeError, match=r"objective\.0\.sise"):
        build_objective(as_objective(Plain, "objective.0"), {"sise": 2.0}, "objective.0", WIDTHS)
    for made, name in ((Hiding, "posterior"), (HidingBuffer, "segments"), (HidingNumber, "candidates")):
        with pytest.raises(RecipeError, match=rf"objective\.0: {made.__name__}\.{name}"):
            build_objective(as_objective(made, "objective.0"), {}, "objective.0", WIDTHS)


def test_an_objective_is_found_by_its_name_or_its_import_path():
    assert {name: find_objective(name, "objective.0") for name in OBJECTIVES} == OBJECTIVES
    assert find_objective("mvssl.objectives:CMC", "objective.0") is CMC
    with pytest.raises(RecipeError, match=r"objective\.0"):
        find_objective("cmd", "objective.0")


def test_the_optional_members_of_the_built_in_objectives():
    assert {made for made in OBJECTIVES.values() if made.reads_views} == {InfoMax, Predict}
    assert {made for made in OBJECTIVES.values() if made.posterior is not Objective.posterior} == {MIB, InfoMax}
    assert {made for made in OBJECTIVES.values() if made.beta is not Objective.beta} == {MIB}
    assert {made for made in OBJECTIVES.values() if made.candidates is Objective.candidates} == {Predict}
    assert all(made.represent is not Objective.represent for made in OBJECTIVES.values())
    assert DIM(WIDTHS, estimator="nwj").estimator_name == "nwj"
    assert CMC(WIDTHS).estimator_name == "infonce"


def test_pairs_are_all_pairs_or_those_with_the_core_view():
    assert choose_pairs(["a", "b", "c"], "full", "cmc") == [("a", "b"), ("a", "c"), ("b", "c")]
    assert choose_pairs(["a", "b", "c"], "b", "cmc") == [("b", "a"), ("b", "c")]
    for views, pairs in ((["a"], "full"), (["a", "b"], "d")):
        with pytest.raises(RecipeError, match=r"cmc"):
            choose_pairs(views, pairs, "cmc")
