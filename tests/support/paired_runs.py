"""An untrained run of two sensors on the shards of `small_runs`, and its features computed without a cache."""

from pathlib import Path

import numpy as np
import small_runs
import torch

from mvssl.checkpoints import store
from mvssl.data import open_shards, sequential_loader
from mvssl.model import build_model
from mvssl.recipe import parse_recipe, to_yaml
from mvssl.runs import load
from mvssl.views import build_views

SAMPLES = 40  # those of `small_runs`


def make_run(root: Path, folder: Path, **data) -> load.LoadedRun:
    """Views `rgb` and `Depth` of 8 numbers each; `data` replaces what the recipe says of the data."""
    tables = small_runs.tables(
        root,
        folder,
        views={
            "rgb": {"from": "image", "augment": "crop_flip", "normalize": "none"},
            "Depth": {"from": "depth", "augment": "crop_flip", "normalize": "none", "geometry": "rgb"},
        },
        data__columns={"image": {"field": "png"}, "depth": {"field": "depth.png"}},
        **{f"data__{key}": value for key, value in data.items()},
    )
    network = tables["encoder"]
    tables["encoder"] = {"rgb": network, "Depth": network}
    recipe = parse_recipe({**tables, "data": {k: v for k, v in tables["data"].items() if v is not None}})
    shapes = {"image": (3, 8, 8), "depth": (1, 8, 8)}
    torch.manual_seed(recipe.train.seed)
    model = build_model(recipe, build_views(recipe.views, shapes).shapes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    store.save_checkpoint(folder, 7, model, torch.optim.AdamW(model.parameters()), {"columns": shapes}, keep=2)
    return load.load_run(folder)


def features(loaded: load.LoadedRun) -> dict[str, np.ndarray]:
    """Its vectors by view, straight from shards to encoder."""
    recipe = loaded.recipe
    source = open_shards("train/*.tar", recipe.data.folder, recipe.data.columns, progress=False)
    (batch,) = sequential_loader(source, batch_size=256)
    with torch.no_grad():
        return {view: x.vector.numpy() for view, x in loaded.model.encode(loaded.views.clean(batch)).items()}
