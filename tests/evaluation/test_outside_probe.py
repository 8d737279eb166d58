"""A probe of another package: recipe, command line, records, table, report, trust."""

import json
import sys

import pytest
import small_runs

from mvssl import train
from mvssl.cli.main import main
from mvssl.errors import RecipeError
from mvssl.evaluation import evaluate
from mvssl.reporting import report
from mvssl.runs.load import load_run

SOURCE = '''
from typing import Literal

import torch

from mvssl.evaluation import Probe, ProbeInputs, Result
from mvssl.evaluation.results.metrics import score_classifier


class NearestMean(Probe):
    """Accuracy of the nearest class mean; `norm` is the norm of the distance."""

    def __init__(self, *, norm: Literal[1, 2] = 2):
        self.norm = norm

    def run(self, inputs: ProbeInputs) -> Result:
        train, test = inputs.labelled()
        classes = range(int(train.labels.max()) + 1)
        means = torch.stack([train.features[train.labels == c].mean(0) for c in classes])
        scores = -torch.cdist(test.features, means, p=float(self.norm))
        return score_classifier(scores, test.labels, {"norm": self.norm, "chosen": "fixed beforehand"}, inputs.seed)


class NotAProbe:
    pass
'''
NAME = "nearest_mean_probe:NearestMean"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with shards, the file of the probe, and a run whose recipe names it."""
    root = tmp_path_factory.mktemp("outside")
    (root / "nearest_mean_probe.py").write_text(SOURCE)
    sys.path.insert(0, str(root))
    small_runs.write_shards(root / "train")
    evaluation = {"probes": ["knn", NAME], "options": {NAME: {"norm": 1}}}
    train(small_runs.recipe(root, root / "run", evaluate=evaluation, data__val="train/*.tar", train__steps=2))
    yield root
    sys.path.remove(str(root))


def test_a_recipe_names_it_and_gives_its_options(root, capsys):
    records = evaluate(load_run(root / "run", trust=["nearest_mean_probe"]))
    own = [r for r in records if r["probe"] == NAME]
    assert [r["encoder"] for r in own] == ["pixels", "untrained", "trained"]
    assert {r["protocol"]["norm"] for r in own} == {1}
    assert own[-1]["gain"]["untrained"]["paired_over"] == "test samples"
    assert json.loads((root / "run" / "evaluation.json").read_text()) == records
    assert "nearest_mean" in capsys.readouterr().out
    text = report(root / "run", trust=["nearest_mean_probe"]).file.read_text()
    assert NAME in text


def test_the_command_line_names_it(root):
    out = root / "records.json"
    arguments = ["--probe", NAME, "--no-baselines", "--trust", "nearest_mean_probe", "--json", str(out)]
    main(["evaluate", str(root / "run"), *arguments])
    assert [r["probe"] for r in json.loads(out.read_text())] == [NAME]


def test_a_run_that_names_it_needs_trust(root):
    with pytest.raises(RecipeError, match="--trust nearest_mean_probe"):
        load_run(root / "run")


@pytest.mark.parametrize("name", ["nearest_mean_probe:NotAProbe", "nearest_mean_probe:Absent", "absent_package:Probe"])
def test_a_name_that_is_no_probe_is_refused(root, name):
    with pytest.raises(RecipeError, match=name):
        evaluate(load_run(root / "run", trust=["nearest_mean_probe"]), probes=[name])
