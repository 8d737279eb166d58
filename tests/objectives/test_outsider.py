"""An objective from another package, by import path: training, checks, evaluation, report and export."""

import json
import sys

import pytest
import small_runs

from mvssl import evaluate, export, load_run, report, train

SOURCE = '''
"""Two views agree, and no feature of the batch is constant (after VICReg, arXiv:2105.04906)."""

import torch
from torch import nn

from mvssl import distributed
from mvssl.objectives import Objective


class Agree(Objective):
    def __init__(self, widths, *, embed: int = 8, spread: float = 1.0):
        super().__init__()
        self.spread = spread
        self.project = nn.ModuleDict({f"of_{view}": nn.Linear(width.vector, embed) for view, width in widths.items()})

    def forward(self, features, context):
        z = {view: distributed.gather(self.represent(view, f)) for view, f in features.items()}
        first, *others = z.values()
        distance = sum((first - other).square().mean() for other in others)
        variance = sum(torch.relu(1 - x.var(dim=0).add(1e-4).sqrt()).mean() for x in z.values())
        return distance + self.spread * variance, {"distance": distance.detach(), "variance": variance.detach()}

    def represent(self, view, features):
        name = f"of_{view}" if f"of_{view}" in self.project else f"of_{view}_0"
        return self.project[name](features.vector)


class Module(nn.Module):
    """The same shape without the base class, and without a head."""

    def __init__(self, widths):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, features, context):
        first, *others = (distributed.gather(f.vector) for f in features.values())
        distance = sum((self.scale * first - other).square().mean() for other in others)
        return distance, {"distance": distance.detach()}
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "agreeing.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("agreeing", None)


def test_an_objective_of_another_package_goes_from_training_to_export(package):
    small_runs.write_shards(package / "train")
    objective = [{"name": "agreeing:Agree", "spread": 2.0}, {"name": "agreeing:Module", "weight": 0.1}]
    run = train(small_runs.recipe(package, package / "run", objective=objective, train__check_every=3)).folder

    held_out = small_runs.checks(run)[6]
    keys = {"loss", "Agree/loss", "Agree/distance", "Agree/variance", "Module/loss", "Module/distance"}
    assert {f"val/{key}" for key in keys} <= held_out.keys()
    assert keys <= small_runs.metrics(run)[-1].keys()
    assert json.loads((run / "verdict.json").read_text())["step"] == 6

    loaded = load_run(run, trust=["agreeing"])
    records = evaluate(loaded, probes=["knn"], layer="head", baselines=False, show=False)
    assert {record["subject"]["objective"] for record in records} == {"Agree"}
    assert report(run, trust=["agreeing"], samples=20).file.exists()
    export(loaded, package / "backbone")
    assert (package / "backbone" / "model.safetensors").exists()
