"""Open what is measured: runs, folders written by `mvssl export` or timm, and timm models by name.

in   a folder, or timm:NAME with or without weights; all but a run need a recipe for the data and the views
out  a `Subject`. That of an export or a timm model has no objective, and does not use the recipe's encoder
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch

from mvssl.data.shard_source import open_shards
from mvssl.encoders import Encoder
from mvssl.errors import DataError, RecipeError
from mvssl.evaluation.subject import Subject
from mvssl.model import MultiView
from mvssl.recipe import Recipe, ViewConfig, load_recipe, with_overrides
from mvssl.recipe import schema as recipes
from mvssl.recipe.messages import nearest
from mvssl.runs.load import CHOSEN_BY, LoadedRun, load_run, open_run
from mvssl.text import split_names
from mvssl.views import build_views, resolve_statistics
from mvssl.views.view_set import needs_measuring

TIMM = "timm:"
OVERRIDES = ("evaluate.", "data.root=", "data.train=", "data.val=", "data.label", "data.workers=")
Shapes = Mapping[str, tuple[int, ...]]


class NetworkSource(NamedTuple):
    """One network with its weights."""

    table: recipes.EncoderConfig  # builds the network and names its start weights
    views: list[str]  # the views that it was trained on; empty if they are not known
    channels: int | None = None  # of its input
    normalize: dict[str, list[float]] | None = None  # statistics of the first of its views
    step: int | None = None
    which: str | None = None  # the checkpoint that was exported: last, best or a step


def open_subject(
    given: str | Path | LoadedRun | Subject,
    *,
    recipe: str | Path | None = None,
    overrides: Iterable[str] = (),
    weights: str | None = None,
    views: Iterable[str] | None = None,
    trust: Iterable[str] = (),
    checkpoint: str | int = "last",
    changes: tuple[str, ...] = OVERRIDES,
) -> Subject:
    """Open a run folder, an export folder, a timm folder, or `timm:NAME`. All of these except a run need a recipe.

    A `LoadedRun` or a `Subject` is already open. `trust` and `checkpoint` are only for folders. `overrides` change the
    recipe. For a run they may change only keys with a prefix in `changes`: its data and its evaluation. `weights` are
    for `timm:NAME`. Raise `RecipeError` or `DataError` if it cannot be opened.
    """
    overrides = list(overrides)
    if isinstance(given, Subject | LoadedRun):
        if recipe is not None or weights is not None:
            raise RecipeError("recipe and weights are accepted for the name of a subject, not for an open one")
        subject = Subject.of_run(open_run(given, trust, checkpoint)) if isinstance(given, LoadedRun) else given
        return _override(subject, overrides, changes)
    folder, name = Path(given), str(given)
    if weights is not None and not name.startswith(TIMM):
        raise RecipeError(f"--weights are for timm:NAME; {name} has its own weights")
    if (folder / "recipe.yaml").is_file():
        if recipe is not None:
            raise RecipeError(f"{name} is a run with its own recipe; --recipe is for exports and timm:NAME")
        return _override(Subject.of_run(load_run(folder, trust, checkpoint)), overrides, changes)
    exports = [] if name.startswith(TIMM) else _find_exports(folder)
    if not name.startswith(TIMM) and not exports:
        raise DataError(
            f"{name} is not a run folder (with recipe.yaml), an export or timm folder (with config.json and "
            f"model.safetensors), or a timm model (timm:NAME)"
        )
    if recipe is None:
        raise RecipeError(f"{name} holds no data and views to measure it on; add --recipe RECIPE")
    table = load_recipe(recipe, overrides)
    if exports:
        return _open_exports(str(folder), exports, table, views)
    return _open_timm(name, table, weights, views)


def _override(run: Subject, overrides: list[str], changes: tuple[str, ...]) -> Subject:
    """Return the subject with the overrides in its recipe. Raise `RecipeError` for a key not in `changes`."""
    for given in overrides:
        table = given.partition("=")[0].partition(".")[0]
        if table not in Recipe.model_fields:
            raise RecipeError(f"{given}: unknown key {table}{nearest(table, Recipe.model_fields)}")
        if not given.startswith(changes):
            raise RecipeError(f"{given}: for a run, overrides must begin with one of {', '.join(changes)}")
    return replace(run, recipe=with_overrides(run.recipe, overrides, run.name))


def _find_exports(folder: Path) -> list[Path]:
    """Return the folder, or folders in it, that have both config.json and model.safetensors."""
    places = [folder, *sorted(inside for inside in folder.iterdir() if inside.is_dir())] if folder.is_dir() else []
    exports = [f for f in places if (f / "config.json").is_file() and (f / "model.safetensors").is_file()]
    return exports[:1] if exports[:1] == [folder] else exports


def _open_exports(name: str, folders: list[Path], recipe: Recipe, only: Iterable[str] | None) -> Subject:
    sources = [_read_export(folder) for folder in folders]
    facts = {"kind": "export", "architecture": ", ".join(source.table.name for source in sources)}
    facts |= {"step": sources[0].step, "which": sources[0].which}
    facts |= {"chosen": CHOSEN_BY} if sources[0].which == "best" else {}
    return _build_subject(name, recipe, sources, facts, only)


def _open_timm(given: str, recipe: Recipe, weights: str | None, only: Iterable[str] | None) -> Subject:
    """Open `timm:NAME`. It is untrained without `weights`, which are `pretrained` (those of timm) or a path."""
    name, pretrained = given.removeprefix(TIMM), weights == "pretrained"
    table = recipes.EncoderConfig(name=name, pretrained=pretrained, init_from=None if pretrained else weights)
    known = timm.models.get_pretrained_cfg(name, allow_unregistered=True) if timm.is_model(name.split(".")[0]) else None
    own = {"mean": list(known.mean), "std": list(known.std)} if pretrained and known else None
    facts = {"kind": "timm", "architecture": name, "weights": weights}
    source = NetworkSource(table, [], normalize=own)
    return _build_subject(given, recipe, [source], facts, only, trained=weights is not None)


def _read_export(folder: Path) -> NetworkSource:
    """Return the network of a folder. Raise `DataError` if its config.json is not one of timm or `mvssl export`."""
    try:
        config = json.loads((folder / "config.json").read_text())
        name, about = config["architecture"], config.get("pretrained_cfg", {})
        if not isinstance(name, str):
            raise TypeError(name)
        ours, size = config.get("mvssl", {}), about.get("input_size")
        numbers = {key: [float(x) for x in about[key]] for key in ("mean", "std") if key in about} if ours else {}
        table = recipes.EncoderConfig(name=name, options=dict(config.get("model_args", {})), init_from=str(folder))
        views, channels = list(ours.get("views", {})), size and int(size[0])
        return NetworkSource(table, views, channels, numbers or None, ours.get("step"), ours.get("checkpoint"))
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise DataError(
            f"{folder / 'config.json'} is not a config of timm: it needs an architecture, and numbers for its input"
        ) from None


def _build_subject(
    name: str,
    recipe: Recipe,
    sources: list[NetworkSource],
    facts: dict[str, Any],
    only: Iterable[str] | None,
    trained: bool = True,
) -> Subject:
    source = open_shards(recipe.data.train, recipe.data.folder, recipe.data.columns, missing="drop")
    tables = _select_views(recipe, only)
    measured = {view for view, table in tables.items() if needs_measuring(view, table, source)}
    plain = {v: t.model_copy(update={"normalize": "none"}) if v in measured else t for v, t in tables.items()}
    shapes = build_views(plain, source.shapes).shapes
    groups = _assign_views(sources, shapes, name)
    tables = {view: tables[view] for group in groups for view in split_names(group)}
    for group, own in groups.items():
        first = split_names(group)[0]
        if own.normalize and first in measured and len(own.normalize["mean"]) == shapes[first][0]:
            tables[first] = tables[first].model_copy(update={"normalize": own.normalize})
    tables = resolve_statistics(tables, source.shapes, source)

    def build(start_weights: bool) -> MultiView:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.train.seed)
            encoders = {
                group: Encoder(own.table, shapes[split_names(group)[0]], group, start_weights=start_weights)
                for group, own in groups.items()
            }
        return MultiView(encoders, []).eval()

    resolved, views = recipe.model_copy(update={"views": tables}), build_views(tables, source.shapes)
    return Subject(name, resolved, views, build(True), facts, lambda: build(False), trained=trained)


def _select_views(recipe: Recipe, only: Iterable[str] | None) -> dict[str, ViewConfig]:
    """Return the views to measure, each drawn once: all draws of a view are equal without augmentation."""
    wanted = [view for view in only or recipe.views if view != "all"] or list(recipe.views)
    for view in wanted:
        if view not in recipe.views:
            raise RecipeError(f"no view {view!r}{nearest(view, recipe.views)}")
    return {view: recipe.views[view].model_copy(update={"count": 1, "geometry": None}) for view in wanted}


def _assign_views(sources: list[NetworkSource], shapes: Shapes, name: str) -> dict[str, NetworkSource]:
    """Return the network for each group of views, such as `left,right`.

    A network gets the views that it was trained on. If they are not known, it gets the views of its channels and shape.
    A timm model by name is built once for each shape of view. Raise `RecipeError` if a network fits no view.
    """
    groups: dict[str, NetworkSource] = {}
    for source in sources:
        free = [view for view in shapes if not any(view in split_names(group) for group in groups)]
        fitting = [view for view in free if source.channels in (None, shapes[view][0])]
        alike: dict[tuple[int, ...], list[str]] = {}
        for view in [view for view in fitting if view in source.views] or fitting:
            alike.setdefault(shapes[view][:1] if source.channels else shapes[view], []).append(view)
        if not alike:
            listed = ", ".join(f"{view} {list(shape)}" for view, shape in shapes.items())
            raise RecipeError(
                f"{name}: {source.table.name} has {source.channels} channels and fits none of the views ({listed})"
            )
        groups |= {",".join(views): source for views in alike.values()}
    return groups
