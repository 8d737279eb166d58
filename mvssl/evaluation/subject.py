"""The subject of an evaluation: encoders with their weights, their views, and the facts that identify them.

in   a recipe, its views, and a model; `mvssl.evaluation.opening` opens runs, exports and timm models
out  a `Subject`, and its encoders: raw pixels, the network before its first step, the trained one
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mvssl.evaluation.features.labelled import pooled_shape
from mvssl.evaluation.features.layers import PIXELS, EncoderUnderTest, digest_source, digest_weights, head_layers
from mvssl.model import MultiView, build_model
from mvssl.recipe import ObjectiveConfig, Recipe
from mvssl.recipe.draw_names import first_draw_name
from mvssl.runs.load import CHOSEN_BY, LoadedRun
from mvssl.views import ViewSet


@dataclass(frozen=True)
class Subject:
    """What an evaluation measures. `name` is the title of its column in a table. Each record contains `facts`."""

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


def describe_terms(terms: Iterable[ObjectiveConfig]) -> str:
    """Return the objectives as a text for digests, in the form that earlier records have."""
    described = []
    for term in terms:
        keys = ", ".join(
            f"{key}={value!r}" for key, value in {"name": term.name, "weight": term.weight, **term.options}.items()
        )
        described.append(f"(Objective({keys}), {digest_source(term.name)!r})")
    return f"[{', '.join(described)}]"


@contextlib.contextmanager
def encoders_under_test(
    subject: Subject, device: torch.device, *, baselines: bool = True
) -> Iterator[list[EncoderUnderTest]]:
    """Yield raw pixels, the encoder before its first training step, and the encoder itself, on the device.

    Without `baselines` yield the encoder alone. At the end the model of the subject returns to its own device.
    """
    home = next(subject.model.parameters()).device
    models = {"untrained": subject.start()} if baselines and subject.trained else {}
    models["trained" if subject.trained else "untrained"] = subject.model
    encoders = [EncoderUnderTest(PIXELS, None)] if baselines else []
    try:
        for name, model in models.items():
            terms = subject.recipe.objective if model.terms else []
            digest = digest_weights(model.eval(), describe_terms(terms))
            encoders.append(EncoderUnderTest(name, model.to(device), digest))
        yield encoders
    finally:
        subject.model.to(home)


def describe_origin(
    subject: Subject, encoder: EncoderUnderTest, layer: str, view: str, *, standardised: bool = True
) -> dict[str, str]:
    """Return in words how the features were made (`features`), and for a head its `objective`.

    `standardised`: whether joined views were standardised by train.
    """
    model, drawn = encoder.model, first_draw_name(view, subject.views.shapes)
    if drawn is None:
        features = "all views side by side" + ", each standardised by train" * standardised
    elif model is not None and not layer.isdecimal():
        features = f"the {'vector' if layer == 'vector' else 'head'} of {model.encoder_of(view).name}"
    else:
        shape = tuple(subject.views.shapes[drawn] if model is None else model.encoder_of(view).widths.maps[int(layer)])
        size, pooled = ("x".join(map(str, sides)) for sides in (shape, pooled_shape(shape)))
        how = "flattened" if pooled == size else f"average-pooled to {pooled}, flattened"
        features = "as they are" if len(shape) == 1 else f"{size} {how}"
    head = head_layers(subject.model).get(layer)
    return {"features": features} | ({"objective": head[0]} if head and model is not None else {})
