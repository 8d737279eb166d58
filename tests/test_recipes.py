"""Every file in recipes/ loads, builds, and takes a step on random samples of its own shape."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_features import SampleList

from mvssl.model import build_model, find_idle_parameters
from mvssl.objectives import Context
from mvssl.random import Draws
from mvssl.recipe import load_recipe
from mvssl.views import build_views, resolve_statistics

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))
SHAPES = {
    "quickstart": {"image": (1, 8, 8)},
    "mib_mnist": {"image": (1, 28, 28)},
    "amdim_mixture_nyuv2": {"rgb": (3, 120, 160)},
    "cmc_rgbd_nyuv2": {"rgb": (3, 120, 160), "depth": (1, 120, 160)},
    "cmc_imu_dsads": dict.fromkeys(("torso", "rarm", "larm", "rleg", "lleg"), (9, 125)),
    "cmc_features_mfeat": {"fac": (216,), "fou": (76,), "kar": (64,), "mor": (6,), "pix": (240,), "zer": (47,)},
    "mib_audiovisual_digits": {"audio": (1, 6400), "image": (1, 28, 28)},
}
CIFAR = {"image": (3, 32, 32)}


class Batch:
    def __init__(self, samples: list[dict[str, np.ndarray]]):
        self.position = torch.arange(len(samples))
        self.columns = {name: torch.from_numpy(np.stack([sample[name] for sample in samples])) for name in samples[0]}


def test_the_recipes_that_the_documents_name_are_there():
    assert {path.stem for path in RECIPES} >= {
        "quickstart", "dim_cifar10", "amdim_cifar10", "cmc_lab_cifar10", "mib_mnist", "cmc_rgbd_nyuv2",
        "cmc_imu_dsads", "cmc_features_mfeat", "mib_audiovisual_digits",
    }  # fmt: skip


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_builds_and_every_parameter_learns(path: Path):
    recipe = load_recipe(path)
    shapes = SHAPES.get(path.stem, CIFAR)
    numbers = np.random.default_rng(0)
    samples = [{name: numbers.integers(0, 256, s).astype(np.uint8) for name, s in shapes.items()} for _ in range(4)]
    views = build_views(resolve_statistics(recipe.views, shapes, SampleList(samples)), shapes)
    model = build_model(recipe, views.shapes)
    batch = Batch(samples)
    context = Context(step=0, index=batch.position, draws=Draws(0, batch.position))
    loss, metrics = model(views(batch, seed=0), context)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(value) for value in metrics.values())
    assert find_idle_parameters(model, views(batch, seed=0), context) == []


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_opens_with_its_paper_its_cost_and_what_to_expect(path: Path):
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    text = " ".join(head)
    assert "arXiv:" in text
    assert "Cost:" in text
    assert "Expect:" in text
