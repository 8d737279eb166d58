"""What an evaluation does: which probes, with which settings, on which layers and views.

in   names of probes, a layer, views
out  `Job`s, and what must be known of every sample before they can be done
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from pydantic import create_model

from mvssl.errors import RecipeError
from mvssl.evaluation.features.inputs import ALL
from mvssl.evaluation.features.layers import DENSE, PIXELS, Candidate, Want, dense_numbers
from mvssl.evaluation.probes.table import PROBES
from mvssl.recipe import Evaluate
from mvssl.recipe.messages import nearest
from mvssl.recipe.options import checked, options_of

DECIDED = ("seed", "device", "other", "head")  # of a probe's keywords, by the command line, the machine, a protocol
INPUTS = Want(Candidate(PIXELS, None), PIXELS)


class Job(NamedTuple):
    """A probe by its name, the keywords that it is called with, the layer that it reads."""

    probe: str
    options: dict[str, Any]
    layer: str
    views: tuple[str, ...] | None = None  # None: those that the evaluation chooses
    preset: dict[str, Any] | None = None  # name and deviations, where a paper's protocol asks for it
    called: str = ""  # what that paper calls the layer


def jobs_of(said: Evaluate, probes: Iterable[str], layer: str) -> list[Job]:
    """A job per row of each probe, in the order of PROBES. Raises `RecipeError` for a probe or option there is not."""
    wanted = list(probes)
    for place, names in (("probes", wanted), ("options", said.options)):
        for name in names:
            if name not in PROBES:
                raise RecipeError(f"evaluate.{place}: no probe {name!r}{nearest(name, PROBES)}")
    options = {name: options_for(name, said) for name in said.options}
    return [
        Job(name, row | options.get(name, {}), layer)
        for name in PROBES
        if name in wanted
        for row in PROBES[name].rows(said)
    ]


def options_for(name: str, said: Evaluate) -> dict[str, Any]:
    """Keywords of a probe as `evaluate.options` gives them: those of its function that nothing else decides."""
    fields = options_of(PROBES[name].run).model_fields
    decided = {*DECIDED, *(key for row in PROBES[name].rows(said) for key in row)}
    table = create_model(name, **{key: (f.annotation, f) for key, f in fields.items() if key not in decided})  # pyright: ignore
    return checked(table, said.options[name], f"evaluate.options.{name}")


def need_labels(jobs: list[Job]) -> bool:
    """Whether any of the jobs can do nothing without labels."""
    return any(PROBES[job.probe].labels for job in jobs)


def need_segments(jobs: list[Job]) -> bool:
    """Whether any of the jobs asks for the class of every pixel."""
    return any(PROBES[job.probe].handed == "maps" for job in jobs)


def wants_of(jobs: list[Job], candidates: list[Candidate], *, images: bool = True) -> list[Want]:
    """What the jobs read of every sample: labels, layers of the candidates, maps, and the clean views themselves.

    `images` says whether any view is an image; others have no maps to be read.
    """
    wants = [Want(None)]
    for candidate in candidates:
        for job in jobs:
            wants.append(Want(candidate, layer_of(job, candidate)))
            if PROBES[job.probe].handed == "maps" and images:
                wants += [Want(candidate, DENSE + name) for name in dense_numbers(candidate, job.layer)]
    if any(PROBES[job.probe].inputs for job in jobs):
        wants.append(INPUTS)
    return list({(want.candidate and want.candidate.encoder, want.layer): want for want in wants}.values())


def layer_of(job: Job, candidate: Candidate) -> str:
    """The layer that a job reads of a candidate; pixels have but one."""
    return PIXELS if candidate.model is None else job.layer


def refuse_impossible(said: Evaluate) -> None:
    """Raise `RecipeError` for a probe that a recipe alone can never give what it needs."""
    for name in said.probes:
        if name in PROBES and PROBES[name].other:
            raise RecipeError(f"evaluate.probes: {name} needs shards that `mvssl evaluate --other SHARDS` names")
        if name in PROBES and PROBES[name].handed == "maps" and said.segments is None:
            raise RecipeError(f"evaluate.probes: {name} needs the class of every pixel: evaluate.segments")


def refuse_unknown(wanted: list[str], known: list[str]) -> None:
    """Raise `RecipeError` for a view that there is not."""
    for name in wanted:
        if name not in (*known, ALL):
            raise RecipeError(f"no view {name!r}{nearest(name, (*known, ALL))}")
