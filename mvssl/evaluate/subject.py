"""What is measured: encoders with their weights, the views that they see, and who they are.

in   a run
out  a `Subject`, and its encoders in turn: raw pixels, the network before its first step, the trained one
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mvssl.evaluate.features import heads, pooled
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


class Candidate(NamedTuple):
    """One column of the table; `model` None means the clean views themselves."""

    encoder: str
    model: MultiView | None


def candidates(subject: Subject, baselines: bool) -> Iterator[Candidate]:
    """Raw pixels, the encoder as training began (its seed and start weights), and the subject's own."""
    if baselines:
        yield Candidate("pixels", None)
        yield Candidate("untrained", untrained(subject))
    yield Candidate("trained", subject.model)


def untrained(subject: Subject) -> MultiView:
    """The model of the recipe and seed before its first step, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(subject.recipe.train.seed)
        return build_model(subject.recipe, subject.views.shapes).eval()


def origin(subject: Subject, candidate: Candidate, layer: str, view: str, width: int) -> dict[str, str]:
    """Where features come from: how they were made, and which objective's they are where the layer is a head."""
    made = {"features": _describe(subject, candidate, layer, view, width)}
    head = heads(subject.model).get(layer)
    return made | {"objective": head[0]} if head and candidate.model is not None else made


def _describe(subject: Subject, candidate: Candidate, layer: str, view: str, width: int) -> str:
    """How features came about, in words."""
    shape: tuple[int, ...] = (width,)
    drawn = first_drawn(view, subject.views.shapes)
    if drawn is None:
        return f"all views side by side, each standardised by train, {width} numbers"
    if candidate.model is None:
        shape = tuple(subject.views.shapes[drawn])
    elif layer.isdecimal():
        shape = tuple(subject.model.encoder_of(view).widths.maps[int(layer)])
    how = "flattened" if pooled(shape) == shape else f"average-pooled to {'x'.join(map(str, pooled(shape)))}, flattened"
    return f"{width} numbers" if len(shape) == 1 else f"{'x'.join(map(str, shape))} {how}, {width} numbers"
