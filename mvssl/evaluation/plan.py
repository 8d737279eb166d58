"""Plan an evaluation: its probes, their options, and the layer.

in   names of probes, a layer, the recipe's `evaluate` table
out  `PlannedProbe`s, and whether they need labels or segments
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from pydantic import create_model

from mvssl.evaluation.features.splits import Needs
from mvssl.evaluation.probes import PROBES, find_probe
from mvssl.evaluation.probes.base import Probe
from mvssl.recipe import Evaluate, Recipe
from mvssl.recipe.options import checked


class PlannedProbe(NamedTuple):
    """A probe with its name in recipes and records, its options, and the layer that it reads."""

    name: str
    probe: type[Probe]
    options: dict[str, Any]
    layer: str
    preset: dict[str, Any] | None = None  # name, source and deviations of a paper's protocol
    paper_layer: str = ""  # the paper's name of the layer

    def protocol(self, recipe: Recipe) -> dict[str, Any]:
        """Return the entries for the protocol of a record: the paper, and where the classes of pixels come from."""
        segments = recipe.evaluate.segments if self.probe.needs_local_maps else None
        described = segments and segments.model_dump(mode="json", exclude_defaults=True)
        return {name: value for name, value in {"preset": self.preset, "segments": described}.items() if value}


def plan_probes(evaluate: Evaluate, names: Iterable[str], layer: str) -> list[PlannedProbe]:
    """Plan each probe with each of its settings: first in the order of PROBES, then probes of other packages.

    Raise `RecipeError` for an unknown probe or option.
    """
    wanted = {name: find_probe(name, "evaluate.probes") for name in names}
    options = {name: _check_options(name, evaluate) for name in evaluate.options}
    ordered = [*(name for name in PROBES if name in wanted), *(name for name in wanted if name not in PROBES)]
    return [
        PlannedProbe(name, wanted[name], settings | options.get(name, {}), layer)
        for name in ordered
        for settings in wanted[name].settings(evaluate)
    ]


def _check_options(name: str, evaluate: Evaluate) -> dict[str, Any]:
    """Return the options of a probe in `evaluate.options`. Raise `RecipeError` for one that is decided elsewhere."""
    probe = find_probe(name, "evaluate.options")
    decided = {*probe.decided, *(key for settings in probe.settings(evaluate) for key in settings)}
    fields = {key: (f.annotation, f) for key, f in probe.options().model_fields.items() if key not in decided}
    return checked(create_model(name, **fields), evaluate.options[name], f"evaluate.options.{name}")  # pyright: ignore


def list_needs(planned: list[PlannedProbe]) -> Needs:
    """Return what any of the probes needs of the samples."""
    probes = [each.probe for each in planned]
    return Needs(any(p.needs_labels for p in probes), any(p.needs_local_maps for p in probes))


def refuse_impossible(evaluate: Evaluate) -> None:
    """Raise `RecipeError` for a probe of the recipe that is unknown, or needs more than a recipe can give."""
    for name in evaluate.probes:
        find_probe(name, "evaluate.probes").refuse_recipe(name, evaluate)
