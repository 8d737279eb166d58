"""The subject of an evaluation: encoders with their weights, their views, and the facts that identify them.

in   a run, an exported encoder, or a timm model
out  a `Subject`, and its encoders: raw pixels, the network before its first step, the trained one
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from mvssl.errors import DataError, RecipeError
from mvssl.evaluation.features.labelled import pooled_shape
from mvssl.evaluation.features.layers import PIXELS, EncoderUnderTest, digest_source, digest_weights, head_layers
from mvssl.model import MultiView, build_model
from mvssl.recipe import Recipe, load_recipe, with_overrides
from mvssl.recipe.messages import nearest
from mvssl.recipe.naming import first_drawn
from mvssl.runs.load import CHOSEN_BY, LoadedRun, load_run
from mvssl.views import ViewSet

Opened = TypeVar("Opened", "LoadedRun", "Subject")
OVERRIDES = ("evaluate.", "data.root=", "data.train=", "data.val=", "data.label", "data.workers=")


@dataclass(frozen=True)
class Subject:
    """What an evaluation measures. `name` is the head of its column in a table. `facts` go into each of its records."""

    name: str
    recipe: Recipe
    views: ViewSet
    model: MultiView
    facts: dict[str, Any]  # kind, folder, checkpoint, step, ...
    start: Callable[[], MultiView]  # the model before its first step
    home: Path | None = None  # the folder that keeps evaluation.json
    trained: bool = True  # False: the model is as it was before its first step

    @classmethod
    def of_run(cls, run: LoadedRun) -> "Subject":
        """Return the subject of a run that `mvssl.runs.load.load_run` opened."""

        def start() -> MultiView:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(run.recipe.train.seed)
                return build_model(run.recipe, run.views.shapes)

        facts = {"kind": "run", "checkpoint": str(run.checkpoint), "step": run.step, "which": run.which}
        facts |= {"chosen": CHOSEN_BY} if run.which == "best" else {}
        return cls(str(run.folder), run.recipe, run.views, run.model, facts, start, Path(run.folder))


def open_subject(
    given: "str | Path | LoadedRun | Subject",
    *,
    recipe: str | Path | None = None,
    overrides: Iterable[str] = (),
    weights: str | None = None,
    views: Iterable[str] | None = None,
    trust: Iterable[str] = (),
    checkpoint: str | int = "last",
    changes: tuple[str, ...] = OVERRIDES,
) -> Subject:
    """Open a run folder, a folder of `mvssl export` or timm, or `timm:NAME`. All but a run need a recipe.

    A `LoadedRun` or a `Subject` is already open: `trust` and `checkpoint` are for folders. `overrides` change the
    recipe. For a run they may change only keys with a prefix in `changes`: its data and its evaluation. `weights` are
    for `timm:NAME`. Raise `RecipeError` or `DataError` if it cannot be opened.
    """
    from mvssl.evaluation import external  # which imports this module

    overrides = list(overrides)
    if isinstance(given, Subject | LoadedRun):
        if recipe is not None or weights is not None:
            raise RecipeError("recipe and weights are accepted for the name of a subject, not for an open one")
        if isinstance(given, LoadedRun):
            return Subject.of_run(_changed(given, overrides, changes))
        return _changed(given, overrides, changes)
    folder, given = Path(given), str(given)
    is_timm = given.startswith(external.TIMM)
    if weights is not None and not is_timm:
        raise RecipeError(f"--weights are for timm:NAME; {given} has its own weights")
    if (folder / "recipe.yaml").is_file():
        if recipe is not None:
            raise RecipeError(f"{given} is a run with its own recipe; --recipe is for exports and timm:NAME")
        return Subject.of_run(_changed(load_run(folder, trust, checkpoint), overrides, changes))
    if not is_timm and not external.is_export(folder):
        raise DataError(
            f"{given} is not a run folder (with recipe.yaml), an export or timm folder (with config.json and "
            f"model.safetensors), or a timm model (timm:NAME)"
        )
    if recipe is None:
        raise RecipeError(f"{given} holds no data and views to measure it on; add --recipe RECIPE")
    table = load_recipe(recipe, overrides)
    if is_timm:
        return external.open_timm(given, table, weights, views)
    return external.open_export(folder, table, views)


def _changed(opened: Opened, overrides: list[str], changes: tuple[str, ...]) -> Opened:
    """Return the run or subject with the overrides in its recipe. Raise `RecipeError` for a key not in `changes`."""
    if not overrides:
        return opened
    name = str(opened.folder) if isinstance(opened, LoadedRun) else opened.name
    for given in overrides:
        table = given.partition("=")[0].partition(".")[0]
        if table not in Recipe.model_fields:
            raise RecipeError(f"{given}: unknown key {table}{nearest(table, Recipe.model_fields)}")
        if not given.startswith(changes):
            raise RecipeError(f"{given}: for a run, overrides must begin with one of {', '.join(changes)}")
    return replace(opened, recipe=with_overrides(opened.recipe, overrides, name))


def encoders_under_test(subject: Subject, baselines: bool) -> Iterator[EncoderUnderTest]:
    """Yield raw pixels, the encoder before its first training step, and the encoder itself."""
    if baselines:
        yield EncoderUnderTest(PIXELS, None)
    if baselines and subject.trained:
        yield _with_digest("untrained", subject.start().eval(), subject)
    yield _with_digest("trained" if subject.trained else "untrained", subject.model.eval(), subject)


def _with_digest(name: str, model: MultiView, subject: Subject) -> EncoderUnderTest:
    terms = subject.recipe.objective if model.terms else []
    objective = repr([(term, digest_source(term.name)) for term in terms])
    return EncoderUnderTest(name, model, digest_weights(model, objective))


def origin(
    subject: Subject, encoder: EncoderUnderTest, layer: str, view: str, *, standardised: bool = True
) -> dict[str, str]:
    """Return how the features were made (`features`), and for a head its `objective`.

    `standardised`: whether joined views were standardised by train.
    """
    if first_drawn(view, subject.views.shapes) is None:
        facts = {"features": "all views side by side" + ", each standardised by train" * standardised}
    else:
        facts = {"features": _describe(subject, encoder, layer, view)}
    head = head_layers(subject.model).get(layer)
    return facts | {"objective": head[0]} if head and encoder.model is not None else facts


def _describe(subject: Subject, encoder: EncoderUnderTest, layer: str, view: str) -> str:
    """Return in words how the features of one view were made."""
    drawn = first_drawn(view, subject.views.shapes) or view
    if encoder.model is None:
        shape = tuple(subject.views.shapes[drawn])
    elif layer.isdecimal():
        shape = tuple(encoder.model.encoder_of(view).widths.maps[int(layer)])
    else:
        return f"the {'vector' if layer == 'vector' else 'head'} of {encoder.model.encoder_of(view).name}"
    how = (
        "flattened"
        if pooled_shape(shape) == shape
        else f"average-pooled to {'x'.join(map(str, pooled_shape(shape)))}, flattened"
    )
    return "as they are" if len(shape) == 1 else f"{'x'.join(map(str, shape))} {how}"
