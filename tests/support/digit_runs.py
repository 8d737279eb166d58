"""Runs on scikit-learn's digits, for tests of the evaluation."""

import torch

from mvssl.checkpoints import store
from mvssl.data import open_shards
from mvssl.model import build_model
from mvssl.recipe import parse_recipe, to_yaml
from mvssl.runs import load
from mvssl.views import build_views

VIEWS = {
    "whole": {"from": "image", "size": 8, "normalize": {"mean": [0.3], "std": [0.4]}},
    "twice": {"from": "image", "size": 8, "normalize": {"mean": [0.3], "std": [0.4]}, "count": 2},
    "small": {"from": "image", "size": 4, "normalize": {"mean": [0.3], "std": [0.4]}},
}


def make_run(digits, folder, *, views=("whole", "twice"), moved=0.0, **data):
    """Write a run folder whose weights differ by `moved` from the start weights, and open it."""
    tables = {
        "data": {
            "root": str(digits), "train": "digits/val/*.tar", "val": "digits/val/*.tar", "workers": 0,
            "columns": {"image": {"field": "png"}}, "label": {"field": "cls"}, **data,
        },
        "views": {name: VIEWS[name] for name in views},
        "encoder": {"name": "test_resnet"},
        "objective": {"name": "cmc"},
        "evaluate": {"shots": [1, 10], "draws": 3},
        "train": {"steps": 1, "out": str(folder)},
    }  # fmt: skip
    recipe = parse_recipe({**tables, "data": {k: v for k, v in tables["data"].items() if v is not None}})
    columns = open_shards("digits/val/*.tar", digits, recipe.data.columns, progress=False).shapes
    torch.manual_seed(recipe.train.seed)
    model = build_model(recipe, build_views(recipe.views, columns).shapes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(moved * torch.randn_like(parameter))
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    store.save_checkpoint(folder, 7, model, torch.optim.AdamW(model.parameters()), {"columns": columns}, keep=2)
    return load.load_run(folder)


def select(records, **keys):
    """Return the records with these values."""
    return [r for r in records if all(r.get(key) == value for key, value in keys.items())]
