"""Each objective, given scenes that its views share, finds out what they share."""

import pytest
import torch
from small_features import context
from torch import nn

from mvssl.encoders import Features, Widths
from mvssl.objectives import AMDIM, CMC, DIM, MIB

N, WIDTHS = 32, Widths(maps=((8, 3, 3),), vector=12)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.local = nn.Sequential(nn.Conv2d(6, 8, 1), nn.ReLU())
        self.last = nn.Linear(8, 12)

    def forward(self, x):
        local = self.local(x)
        return Features((local,), self.last(local.mean(dim=(2, 3))))


def train(objective, steps=150):
    """Metrics at the end: new scenes at each step, in every place of both views, each place under noise of its own."""
    encoders = nn.ModuleDict({view: Encoder() for view in "ab"})
    optimizer = torch.optim.Adam([*encoders.parameters(), *objective.parameters()], lr=5e-3)
    for step in range(steps):
        scene = torch.randn(N, 6, 1, 1)
        features = {view: encoder(scene + 0.5 * torch.randn(N, 6, 3, 3)) for view, encoder in encoders.items()}
        loss, metrics = objective(features, context(N, step=step, start=N * step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: value.item() for name, value in metrics.items()}


@pytest.mark.parametrize(
    ("made", "options", "metric", "reached"),
    [
        (DIM, {"estimator": "infonce", "units": 16}, "bound/a/local", 3.0),  # of log(1 + 31 * 9) = 5.6
        (DIM, {"estimator": "jsd", "units": 16}, "jsd/a/local", 0.8),  # of 2 log 2 = 1.39
        (AMDIM, {"embed": 12, "scales": (("vector", 0),)}, "bound/a-b/vector-0", 2.0),
        (CMC, {"embed": 12}, "bound/a-b", 2.5),  # of log 32 = 3.47
        (MIB, {"latent": 6, "units": 64, "beta": 1e-3, "beta_end": 0}, "bound/a-b", 0.3),
        (MIB, {"latent": 6, "units": 64, "beta": 0.0, "estimator": "infonce", "negatives": "all"}, "bound/a-b", 0.4),
    ],
)
def test_the_bound_rises_and_stays_below_its_ceiling(made, options, metric, reached):
    metrics = train(made(dict.fromkeys("ab", WIDTHS), **options))
    assert metrics[metric] > reached
    for name in [name for name in metrics if name.startswith("ceiling")]:
        assert metrics[name.replace("ceiling", "bound")] < metrics[name]


def test_a_heavy_beta_drops_what_a_light_one_keeps():
    options = {"latent": 6, "units": 64, "beta_end": 0}
    light, heavy = (train(MIB(dict.fromkeys("ab", WIDTHS), beta=beta, **options)) for beta in (1e-3, 1.0))
    assert heavy["skl/a-b"] < 0.1 * light["skl/a-b"]
