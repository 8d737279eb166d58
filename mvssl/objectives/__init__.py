"""Objectives: what the encoders are trained for. `Objective` in `base` is their contract.

in   `Features` of each view of a batch, and a `Context` with the step, the random draws and the rows that are present
out  the loss of the global batch, 0-d and equal on every process, and metrics by key

A recipe names one of OBJECTIVES, or a user's class by its import path (`docs/guides/own_objective.md` shows one).
`find_objective` returns the class, `build_objective` an instance.
"""

from mvssl.objectives.amdim import AMDIM
from mvssl.objectives.base import Context, Objective, ScoreObserver, as_objective, build_objective
from mvssl.objectives.cmc import CMC
from mvssl.objectives.dim import DIM
from mvssl.objectives.infomax import InfoMax
from mvssl.objectives.mib import MIB
from mvssl.objectives.predict import Predict
from mvssl.recipe.options import find_class

OBJECTIVES: dict[str, type[Objective]] = {
    "dim": DIM, "amdim": AMDIM, "cmc": CMC, "mib": MIB, "infomax": InfoMax, "predict": Predict,
}  # fmt: skip


def find_objective(name: str, where: str) -> type[Objective]:
    """Return the class of an objective by its name in a recipe. Raises `RecipeError`, which begins with `where`."""
    return as_objective(find_class(name, OBJECTIVES, where), where)


__all__ = [
    "AMDIM", "CMC", "DIM", "MIB", "OBJECTIVES", "Context", "InfoMax", "Objective", "Predict", "ScoreObserver",
    "build_objective", "find_objective",
]  # fmt: skip
