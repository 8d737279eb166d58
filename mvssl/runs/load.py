"""Open a run: the recipe, the views and the model with the weights of one of its checkpoints.

in   a run folder, and which checkpoint
out  a `LoadedRun`; classes outside mvssl are imported only from packages that the caller trusts
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from mvssl.checkpoints import store as checkpoints
from mvssl.errors import DataError, RecipeError
from mvssl.model import MultiView, build_model
from mvssl.recipe import Recipe
from mvssl.runs.folder import recipe_of
from mvssl.views import ViewSet, build_views

CHOSEN_BY = "by held-out loss on data.val"


def which_weights(step: int | None, which: str | None) -> str:
    """Return a text such as `step 300, the newest checkpoint that verifies`; "" if the step is not known."""
    kinds = {"last": ", the newest checkpoint that verifies", "best": f", the best checkpoint {CHOSEN_BY}"}
    return "" if step is None else f"step {step:,}{kinds.get(which or '', '')}"


@dataclass(frozen=True)
class LoadedRun:
    """An opened run: the model in eval mode with the weights of `checkpoint`."""

    folder: Path
    recipe: Recipe
    model: MultiView
    views: ViewSet
    checkpoint: Path
    step: int  # optimizer steps that the weights were trained for
    which: str = "last"  # the choice of the caller: last, best, or a step

    @property
    def weights(self) -> str:
        """A text that says which weights these are."""
        return which_weights(self.step, self.which)


def load_run(folder: str | Path, trust: Iterable[str] = (), checkpoint: str | int = "last") -> LoadedRun:
    """Return a run with one checkpoint: `last` (the newest intact one), `best` (lowest held-out loss) or a step.

    Classes outside mvssl are allowed only from the packages in `trust`. Raise `DataError` if the folder is not a run,
    or has no intact checkpoint of this kind. Raise `RecipeError` if a class is not trusted.
    """
    folder = Path(folder)
    if not (folder / "recipe.yaml").is_file() and not checkpoints.list_checkpoints(folder):
        raise DataError(f"{folder} is no run folder: it has no recipe.yaml")
    found = _find_checkpoint(folder, str(checkpoint))
    recipe = recipe_of(folder, found)
    refuse_untrusted(recipe, trust)
    state = checkpoints.load_state(found)
    if not state.columns:
        raise DataError(f"{found}/state.json does not name the columns that the run was trained on")
    shapes = {name: tuple(shape) for name, shape in state.columns.items()}
    views = build_views(recipe.views, shapes)
    torch.manual_seed(recipe.train.seed)
    model = build_model(recipe, views.shapes, start_weights=False)
    try:
        model.load_state_dict(checkpoints.load_model(found))
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        raise DataError(
            f"{found} does not fit {folder / 'recipe.yaml'}: {lines[min(1, len(lines) - 1)].strip()}"
        ) from None
    return LoadedRun(folder, recipe, model.eval(), views, found, state.step, str(checkpoint))


def open_run(run: str | Path | LoadedRun, trust: Iterable[str], checkpoint: str | int) -> LoadedRun:
    """Return `load_run(run, trust, checkpoint)`, or a `LoadedRun` as it is.

    Raise `RecipeError` if a `LoadedRun` comes with `trust` or a `checkpoint`, since it was opened with its own.
    """
    if isinstance(run, str | Path):
        return load_run(run, trust, checkpoint)
    if checkpoint != "last" or tuple(trust):
        raise RecipeError("checkpoint and trust are for a run's folder; give them to load_run to open another run")
    return run


def _find_checkpoint(folder: Path, which: str) -> Path:
    if which == "best":
        return checkpoints.best(folder)
    if which.isdecimal():
        return checkpoints.at_step(folder, int(which))
    if which != "last":
        raise RecipeError(f"checkpoint {which!r}: expected last, best, or the number of a step")
    found = checkpoints.newest(folder)
    if found is None:
        raise DataError(f"{folder} holds no checkpoint yet")
    return found


def refuse_untrusted(recipe: Recipe, trust: Iterable[str]) -> None:
    """Raise `RecipeError` if the recipe names a class that is neither in mvssl nor in the packages of `trust`."""
    for place, name in _foreign_classes(recipe).items():
        package = _package(name)
        if package not in trust:
            raise RecipeError(f"{place} names {name!r}, code outside mvssl; add --trust {package} if you trust it")


def foreign_packages(recipe: Recipe) -> list[str]:
    """Return the packages outside mvssl whose classes the recipe names."""
    return [_package(name) for name in _foreign_classes(recipe).values()]


def _foreign_classes(recipe: Recipe) -> dict[str, str]:
    """Return the classes outside mvssl, by their place in the recipe."""
    tables = {f"views.{name}": view.name for name, view in recipe.views.items()}
    tables |= {f"objective.{number}": term.name for number, term in enumerate(recipe.objective)}
    tables |= {f"evaluate.probes.{number}": name for number, name in enumerate(recipe.evaluate.probes)}
    tables |= {f"evaluate.options.{name}": name for name in recipe.evaluate.options}
    return {place: name for place, name in tables.items() if ":" in name}


def _package(name: str) -> str:
    return name.partition(":")[0].partition(".")[0]
