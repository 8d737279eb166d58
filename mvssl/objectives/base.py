"""The contract of an objective: its inputs, its outputs, and its optional methods.

in   `Features` of each view and a `Context`
out  the global loss and its metrics; optionally embeddings, posteriors, segments and counts of candidates

The rest of mvssl uses objectives only through this contract.
"""

import functools
import itertools
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn
from torch.distributions import Normal

from mvssl.encoders import Features, Widths
from mvssl.errors import RecipeError
from mvssl.objectives.estimators import Estimator
from mvssl.random import Draws
from mvssl.recipe.options import construct


class ScoreObserver(Protocol):
    """Receives the scores of pairs of views during a step, for example to find mispaired samples.

    An objective that holds all scores passes them to `observe`. One that reduces them tile by tile asks `watches`, and
    passes what it reduced to `observe_share`.
    """

    def observe(self, view_a: str, view_b: str, scores: Tensor, mask: Tensor) -> None:
        """Record how anchors of `view_a` score with candidates of `view_b`.

        `scores` are [N, n, l] and `mask` is int8 [N, n, 1] as in `mvssl.objectives.estimators`. An observer must not
        change them, wait for the device, or keep the graph of gradients.
        """
        ...

    def watches(self, view_a: str, view_b: str) -> bool:
        """Return whether the observer uses the scores of these views."""
        ...

    def observe_share(self, view_a: str, view_b: str, share: Tensor) -> None:
        """Record the share of negative anchors of `view_a` that score higher than each candidate's own anchor, [n].

        It is defined as in `mvssl.objectives.pairs.Pairs.outscored_share`.
        """
        ...


@dataclass(frozen=True)
class Context:
    """The inputs of an objective for one batch, in addition to the features.

    `step` counts from 0. `index` holds the number of each sample in the data, int64 [n]. `draws` gives random numbers
    that depend only on the seed and the sample. `present` has a bool [n], on the CPU, for each view that some samples
    lack. All samples have a view that has no entry. If a row is False, its features are arbitrary. They must not change
    the loss. `observer` receives scores, if there is one.
    """

    step: int
    index: Tensor
    draws: Draws
    present: dict[str, Tensor] = field(default_factory=dict)
    observer: ScoreObserver | None = None

    def observe(self, view_a: str, view_b: str, scores: Tensor, mask: Tensor) -> None:
        """Pass scores [N, n, l] of anchors of `view_a` with candidates of `view_b` to the observer, if there is one."""
        if self.observer is not None:
            self.observer.observe(view_a, view_b, scores, mask)

    def watches(self, view_a: str, view_b: str) -> bool:
        """Return whether there is an observer that uses the scores of these views."""
        return self.observer is not None and self.observer.watches(view_a, view_b)

    def observe_share(self, view_a: str, view_b: str, share: Tensor) -> None:
        """Pass the share of negatives that outscore each candidate's own anchor, [n], to the observer, if any."""
        if self.observer is not None:
            self.observer.observe_share(view_a, view_b, share)


class Objective(nn.Module):
    """Base class of objectives. A subclass must define `__init__` and `forward`. The other members are optional.

    Keyword-only arguments of `__init__` are the objective's options in a recipe. Their names and types are checked.
    """

    reads_views: bool = False
    """Whether the objective needs the views themselves. Map 0 of each view's features is then the view, [n, c, h, w]
    (a signal is [n, c, 1, t], a vector [n, d, 1, 1]), and map 0 of its `Widths` has that size."""

    n_components: int = 0
    """Number of mixture components that `segments` assigns to places of an image; 0 without a mixture."""

    def __init__(self, widths: dict[str, Widths] | None = None):
        """Build the heads for features of these `widths`. Raises `RecipeError` for unsuitable widths."""
        super().__init__()

    def forward(self, features: dict[str, Features], context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and the metrics.

        The loss is 0-d, in float32 at least. It is the loss of the global batch, so it is equal on every process.
        Metrics are detached 0-d tensors. Their names are quantity/pair/part or quantity/view/part, such as
        `bound/a-b/vector-last`. The vector of each view is in float32 at least. Maps may be in half precision.
        """
        raise NotImplementedError

    def represent(self, view: str, features: Features) -> Tensor:
        """Return the embedding that the objective compares, [n, d]. In evaluation it is the layer `head`.

        `view` is a drawn name (a_0), or the name in the recipe (a). The latter means the first draw.
        """
        raise NotImplementedError

    @property
    def has_head(self) -> bool:
        """Whether the class defines `represent`."""
        return type(self).represent is not Objective.represent

    def candidates(self, batch: int) -> dict[str, int]:
        """Return the number of candidates for each anchor, including its positives. Keys are short descriptions.

        `batch` is the number of samples over all processes. The result is empty if the objective compares no samples.
        """
        return {}

    @property
    def estimator_name(self) -> str:
        """Name of the estimator that the scores are for: the name of the child `Estimator`, or else `infonce`."""
        return next((child.name for child in self.children() if isinstance(child, Estimator)), "infonce")

    def posterior(self, view: str, features: Features) -> Normal:
        """Return p(z | view): independent normals [n, latent]. `represent` returns their mean."""
        raise NotImplementedError

    @property
    def has_posterior(self) -> bool:
        """Whether the class defines `posterior`."""
        return type(self).posterior is not Objective.posterior

    def beta(self, step: int) -> float | None:
        """Return the weight of the divergence between posteriors at `step`. None if the loss has no divergence.

        Checks measure the information plane of an objective with `posterior` and `beta`.
        """
        return None

    def segments(self, view: str, features: Features) -> dict[str, Tensor]:
        """Return the probability of each component at each place: q [n, n_components, h, w] for each map, by level.

        Raises `RecipeError` for an objective without a mixture.
        """
        raise RecipeError(f"the objective {type(self).__name__} has no mixture whose components could take places")


MEMBERS = ("represent", "has_head", "candidates", "estimator_name", "posterior", "has_posterior", "beta", "segments")


def as_objective(made: type, where: str) -> type[Objective]:
    """Return `made` as a subclass of `Objective`. A torch module with a `forward` gets the default members.

    Raises `RecipeError` for other classes. The names of the weights do not change, so old checkpoints stay valid.
    """
    if issubclass(made, Objective):
        return made
    if not issubclass(made, nn.Module) or made.forward is nn.Module.forward:
        raise RecipeError(
            f"{where}: {made.__module__}:{made.__name__} is not an objective; derive it from "
            "mvssl.objectives.Objective and define forward(features, context)"
        )
    return _with_defaults(made)


@functools.cache
def _with_defaults(made: type[nn.Module]) -> type[Objective]:
    names = {"__module__": made.__module__, "__doc__": made.__doc__}
    return types.new_class(made.__name__, (made, Objective), exec_body=lambda namespace: namespace.update(names))


def build_objective(
    made: type[Objective], options: Mapping[str, Any], where: str, widths: dict[str, Widths]
) -> Objective:
    """Check the options against the signature of `made`, and return `made(widths, **options)`.

    Raises `RecipeError` for options that do not fit, and for a module, parameter, buffer or attribute that has the
    name of a member of `Objective`, which would hide it.
    """
    objective: Objective = construct(made, options, where, widths)
    own = {*objective._modules, *objective._parameters, *objective._buffers}
    own |= {name for name in vars(objective) if callable(getattr(Objective, name, None))}
    if hidden := [name for name in MEMBERS if name in own]:
        raise RecipeError(
            f"{where}: {made.__name__}.{hidden[0]} is an attribute, but mvssl.objectives.Objective has a member of "
            f"that name; rename it, for example to _{hidden[0]}"
        )
    return objective


def choose_pairs(views: list[str], pairs: str, where: str) -> list[tuple[str, str]]:
    """Return all pairs of views for `full`, or those with the core view `pairs`.

    `where` is the objective's name. Raises `RecipeError` if there is only one view, or if the core view does not exist.
    """
    if len(views) < 2:
        raise RecipeError(
            f"{where} compares views and has only {', '.join(views)}; add a view, or give this one `count: 2`"
        )
    if pairs == "full":
        return list(itertools.combinations(views, 2))
    if pairs not in views:
        raise RecipeError(f"{where}.pairs: no view {pairs!r}; it takes full or one of {', '.join(views)}")
    return [(pairs, view) for view in views if view != pairs]
