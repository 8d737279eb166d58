"""What is measured: encoders with their weights, the views that they see, and who they are.

in   a run
out  a `Subject`, and its encoders in turn: raw pixels, the network before its first step, the trained one
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mvssl.evaluate.features import pooled
from mvssl.evaluate.layers import PIXELS, Candidate, heads, weights_digest
from mvssl.model import MultiView, build_model
from mvssl.names import first_drawn
from mvssl.recipe import Recipe
from mvssl.views import ViewSet


@dataclass(frozen=True)
class Subject:
    """`name` heads its column where several subjects share a table; `facts` go into every record of it."""

    name: str
    recipe: Recipe
    views: ViewSet
    model: MultiView
    facts: dict[str, Any]  # kind, folder, checkpoint, step, ...
    home: Path | None = None  # the folder that keeps evaluation.json

    @classmethod
    def of_run(cls, run: Any) -> "Subject":
        """A run opened by `mvssl.run.load_run`."""
        facts = {"kind": "run", "checkpoint": str(run.checkpoint), "step": run.step}
        return cls(str(run.folder), run.recipe, run.views, run.model, facts, Path(run.folder))


def candidates(subject: Subject, baselines: bool) -> Iterator[Candidate]:
    """Raw pixels, the encoder as training began (its seed and start weights), and the subject's own."""
    if baselines:
        yield Candidate(PIXELS, None)
        yield _named("untrained", untrained(subject), subject)
    yield _named("trained", subject.model, subject)


def _named(encoder: str, model: MultiView, subject: Subject) -> Candidate:
    return Candidate(encoder, model, weights_digest(model, repr(subject.recipe.objective)))


def untrained(subject: Subject) -> MultiView:
    """The model of the recipe and seed before its first step, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(subject.recipe.train.seed)
        return build_model(subject.recipe, subject.views.shapes).eval()


def origin(subject: Subject, candidate: Candidate, layer: str, view: str) -> dict[str, str]:
    """Where features come from: how they were made, and which objective's they are where the layer is a head."""
    made = {"features": _described(subject, candidate, layer, view)}
    head = heads(subject.model).get(layer)
    return made | {"objective": head[0]} if head and candidate.model is not None else made


def _described(subject: Subject, candidate: Candidate, layer: str, view: str) -> str:
    """How features came about, in words."""
    drawn = first_drawn(view, subject.views.shapes)
    if drawn is None:
        return "all views side by side, each standardised by train"
    if candidate.model is None:
        shape = tuple(subject.views.shapes[drawn])
    elif layer.isdecimal():
        shape = tuple(candidate.model.encoder_of(view).widths.maps[int(layer)])
    else:
        return f"the {'vector' if layer == 'vector' else 'head'} of {candidate.model.encoder_of(view).name}"
    how = "flattened" if pooled(shape) == shape else f"average-pooled to {'x'.join(map(str, pooled(shape)))}, flattened"
    return "as they are" if len(shape) == 1 else f"{'x'.join(map(str, shape))} {how}"
