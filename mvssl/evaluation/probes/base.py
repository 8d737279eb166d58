"""The contract of a probe: which inputs it needs, its options, and how it runs.

in   `ProbeInputs`: one encoder at one layer on one view, with the samples to fit on and to test on
out  one `Result` or several; `NotPossible` if the data do not allow the measurement

A probe does not depend on runs, shards, caches, processes or records. docs/guides/own_probe.md has an example.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from mvssl.errors import RecipeError
from mvssl.evaluation.features.inputs import ALL, ProbeInputs
from mvssl.evaluation.features.layers import CLEAN_VIEWS, DENSE, EncoderUnderTest, FeatureSpec, local_map_layers
from mvssl.evaluation.results.metrics import Result
from mvssl.recipe import Evaluate
from mvssl.recipe.options import options_of


class Probe(ABC):
    """One measurement of one encoder.

    The keyword-only arguments of the constructor are the options that a recipe may give in `evaluate.options`.
    """

    runs_on: ClassVar[Literal["view or all", "view", "all views"]] = "view or all"
    """`view or all`: on each view, and on all views joined. `view`: on each view. `all views`: once, on separate views;
    the record then has the view `all`."""
    needs_labels: ClassVar[bool] = True
    """Without labels the evaluation is refused. A probe that needs none may get empty labels."""
    needs_local_maps: ClassVar[bool] = False
    """Reads `inputs.local_maps()`: maps of the layer, and the class of every pixel (`evaluate.segments`)."""
    needs_encoder: ClassVar[bool] = False
    """Reads `inputs.trainable_encoder()`. Raw pixels have no encoder, so the probe does not run on them."""
    needs_clean_views: ClassVar[bool] = False
    """Reads the clean views beside the features: `inputs.by_view(clean_views=True)`."""
    needs_other: ClassVar[bool] = False
    """Reads `inputs.other()`, the features of shards of another distribution (`--other SHARDS`)."""
    decided: ClassVar[tuple[str, ...]] = ()
    """Options that no recipe may give, because the command line, the machine or a paper's protocol decides them."""

    @abstractmethod
    def run(self, inputs: ProbeInputs) -> Result | Iterable[Result]:
        """Measure. Each result has its `Metric`. With several results, each also has its `what`.

        `Result.protocol` holds the settings and how they were chosen. It must be equal for every encoder.
        `Result.chosen` holds the settings that the data of this encoder decided. Both are JSON. With `parts`, the
        difference of two encoders is paired. Use `inputs.seed` for every random choice. Raise `NotPossible("why")` if
        the data do not allow the measurement: the evaluation notes it and continues.
        """

    @classmethod
    def options(cls) -> type[BaseModel]:
        """Return the table of options: names, types and defaults."""
        return options_of(cls)

    @classmethod
    def settings(cls, evaluate: Evaluate) -> list[dict[str, Any]]:
        """Return the options that other keys of `evaluate` decide. The probe runs once for each dict."""
        return [{}]

    @classmethod
    def views(cls, names: list[str]) -> list[str]:
        """Return the views to run on; `names` are those of the evaluation and may hold `all`."""
        if cls.runs_on == "all views":
            return [ALL]
        return [name for name in names if name != ALL or cls.runs_on == "view or all"]

    @classmethod
    def can_run_on(cls, encoder: EncoderUnderTest) -> bool:
        """Return whether the probe can measure this encoder."""
        return encoder.model is not None or not cls.needs_encoder

    @classmethod
    def features(cls, encoder: EncoderUnderTest, layer: str, *, images: bool) -> list[FeatureSpec]:
        """Return the features that the probe reads. `images`: whether any view is an image."""
        maps = local_map_layers(encoder, layer) if cls.needs_local_maps and images else []
        specs = [FeatureSpec(encoder, encoder.layer(layer)), *(FeatureSpec(encoder, DENSE + name) for name in maps)]
        return [*specs, CLEAN_VIEWS] if cls.needs_clean_views else specs

    @classmethod
    def refuse_recipe(cls, name: str, evaluate: Evaluate) -> None:
        """Raise `RecipeError` if the probe needs more than the recipe gives."""
        if cls.needs_other:
            raise RecipeError(f"evaluate.probes: {name} needs other shards: `mvssl evaluate RUN --other SHARDS`")
        if cls.needs_local_maps and evaluate.segments is None:
            raise RecipeError(f"evaluate.probes: {name} needs the class of every pixel: evaluate.segments")


class FunctionProbe(Probe):
    """A probe that calls a public function with train and test; the function's keyword-only arguments are its options.

    With `runs_on = "all views"`, train and test are `ByView`, else `Labelled`.
    """

    function: ClassVar[Callable[..., Result | Iterable[Result]]]
    decided = ("seed", "device", "other", "head")

    def __init__(self, **keywords: Any):
        self.keywords = keywords

    @classmethod
    def of(cls, function: Callable[..., Result | Iterable[Result]], **attributes: Any) -> type["FunctionProbe"]:
        """Return the probe that calls `function`; `attributes` are class attributes of `Probe`."""
        return type(cls)(function.__name__, (cls,), {"function": function, **attributes})

    @classmethod
    def options(cls) -> type[BaseModel]:
        return options_of(cls.function)

    def arguments(self, inputs: ProbeInputs) -> tuple[Any, ...]:
        """Return the positional arguments of the function."""
        by_view = self.runs_on == "all views"
        return inputs.by_view(clean_views=self.needs_clean_views) if by_view else inputs.labelled()

    def run(self, inputs: ProbeInputs) -> Result | Iterable[Result]:
        return type(self).function(*self.arguments(inputs), seed=inputs.seed, **self.keywords)
