"""Plan an evaluation: its probes, their options, and the layer.

in   names of probes, a layer, the recipe's `evaluate` table
out  `PlannedProbe`s, and the features that they need of every sample
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

from pydantic import create_model

from mvssl.errors import RecipeError
from mvssl.evaluation.features.inputs import ALL
from mvssl.evaluation.features.layers import LABELS, EncoderUnderTest, FeatureSpec
from mvssl.evaluation.probes import PROBES, find_probe
from mvssl.evaluation.probes.base import Probe
from mvssl.recipe import Evaluate, Recipe
from mvssl.recipe.messages import nearest
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
        added = {
            "preset": self.preset,
            "segments": segments and segments.model_dump(mode="json", exclude_defaults=True),
        }
        return {name: value for name, value in added.items() if value}


def plan_probes(evaluate: Evaluate, names: Iterable[str], layer: str) -> list[PlannedProbe]:
    """Plan each probe with each of its settings: first in the order of PROBES, then probes of other packages.

    Raise `RecipeError` for an unknown probe or option.
    """
    wanted = {name: find_probe(name, "evaluate.probes") for name in names}
    options = {name: check_options(name, evaluate) for name in evaluate.options}
    ordered = [*(name for name in PROBES if name in wanted), *(name for name in wanted if name not in PROBES)]
    return [
        PlannedProbe(name, wanted[name], settings | options.get(name, {}), layer)
        for name in ordered
        for settings in wanted[name].settings(evaluate)
    ]


def check_options(name: str, evaluate: Evaluate) -> dict[str, Any]:
    """Return the options of a probe in `evaluate.options`. Raise `RecipeError` for one that is decided elsewhere."""
    probe = find_probe(name, "evaluate.options")
    decided = {*probe.decided, *(key for settings in probe.settings(evaluate) for key in settings)}
    fields = {key: (f.annotation, f) for key, f in probe.options().model_fields.items() if key not in decided}
    return checked(create_model(name, **fields), evaluate.options[name], f"evaluate.options.{name}")  # pyright: ignore


def need_labels(planned: list[PlannedProbe]) -> bool:
    """Return whether any probe needs labels."""
    return any(each.probe.needs_labels for each in planned)


def need_segments(planned: list[PlannedProbe]) -> bool:
    """Return whether any probe needs the class of every pixel."""
    return any(each.probe.needs_local_maps for each in planned)


def collect_specs(
    planned: list[PlannedProbe], encoders: list[EncoderUnderTest], *, images: bool = True
) -> list[FeatureSpec]:
    """List the labels and all features that the probes read, each once. `images`: whether any view is an image."""
    specs = [
        spec for encoder in encoders for each in planned
        for spec in each.probe.features(encoder, each.layer, images=images)
    ]  # fmt: skip
    return list({spec.key: spec for spec in [LABELS, *specs]}.values())


def refuse_impossible(evaluate: Evaluate) -> None:
    """Raise `RecipeError` for a probe of the recipe that is unknown, or needs more than a recipe can give."""
    for name in evaluate.probes:
        find_probe(name, "evaluate.probes").refuse_recipe(name, evaluate)


def refuse_unknown_views(wanted: list[str], known: list[str]) -> None:
    """Raise `RecipeError` for a view that does not exist."""
    for name in wanted:
        if name not in (*known, ALL):
            raise RecipeError(f"no view {name!r}{nearest(name, (*known, ALL))}")
