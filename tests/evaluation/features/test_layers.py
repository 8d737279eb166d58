"""Names of layers, and digests of features."""

import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
import small_runs
import torch

import mvssl
from mvssl.data import open_shards
from mvssl.encoders import Features
from mvssl.errors import RecipeError
from mvssl.evaluation.features import layers
from mvssl.evaluation.features.layers import EncoderUnderTest, FeatureSpec, describe_features, select_layer
from mvssl.model import Term
from mvssl.objectives import Objective
from mvssl.recipe import Column


class Model:
    """Objectives by label; those of the labels in `known` have a head."""

    def __init__(self, **known):
        self.terms = [Term("plain", 1.0, Objective())]
        self.terms += [Term(name, 1.0, Mock(**{"represent.return_value": x})) for name, x in known.items()]


def test_an_unknown_layer_is_refused_with_the_known_layers():
    features = Features((torch.zeros(2, 4, 3, 3), torch.zeros(2, 8, 1, 1)), torch.zeros(2, 8))
    assert select_layer(Model(), "a", features, "0").shape == (2, 36)
    for layer in ("head", "2", "-1", "fc"):
        with pytest.raises(RecipeError, match=r"accepted: vector, 0, 1\)"):
            select_layer(Model(), "a", features, layer)


def test_a_head_is_that_of_the_first_or_the_named_objective():
    model, features = Model(cmc="c", mib="m"), Features((), torch.zeros(2, 8))
    result = {layer: select_layer(model, "a", features, layer) for layer in ("head", "head:cmc", "head:mib")}
    assert result == {"head": "c", "head:cmc": "c", "head:mib": "m"}
    with pytest.raises(RecipeError, match=r"accepted: vector, head, head:cmc, head:mib\)"):
        select_layer(model, "a", features, "head:plain")


@pytest.mark.parametrize("file", ["model.py", "evaluation/features/layers.py", "views/view_set.py"])
def test_changed_code_changes_the_digest_of_features(tmp_path, file):
    root = shutil.copytree(Path(mvssl.__file__).parent, tmp_path / "mvssl", ignore=shutil.ignore_patterns("*.pyc"))
    before = layers._package_digest(root)
    assert before == layers._package_digest.__wrapped__(root)
    with open(root / file, "a") as opened:
        opened.write("x = 1\n")
    assert layers._package_digest.__wrapped__(root) != before


def test_changed_code_changes_features_and_labels(tmp_path, monkeypatch):
    source = open_shards(
        "*.tar", small_runs.write_shards(tmp_path, (5,)), {"label": Column(field="cls")}, progress=False
    )
    for spec in (FeatureSpec(None), FeatureSpec(EncoderUnderTest("pixels", None), "pixels")):
        before = describe_features(spec, source, {}, torch.device("cpu"), "fp32")
        with monkeypatch.context() as patch:
            patch.setattr(layers, "_package_digest", lambda: "other")
            assert describe_features(spec, source, {}, torch.device("cpu"), "fp32") != before
