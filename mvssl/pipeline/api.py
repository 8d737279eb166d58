"""`mvssl.train`: train or continue a run, then evaluate, draw, export and report it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mvssl.pipeline import afterwards
from mvssl.pipeline.pictures import draw_outliers
from mvssl.process.signals import BEFORE_FIRST_STEP
from mvssl.recipe import Recipe, load_recipe, with_overrides
from mvssl.training.loop import Outcome, finish_run, open_session, start_run
from mvssl.training.preparation import prepare

AFTER_LAST_STEP = "stopped in train.then; all steps are done and saved, and the same command continues with the rest"


def train(
    recipe: Recipe | str | Path,
    overrides: Iterable[str] = (),
    *,
    data: Any = None,
    val: Any = None,
    then: bool = True,
) -> Outcome:
    """Train, or continue, the run that `recipe` describes; the same on any number of processes.

    `recipe` is a `Recipe` or the path of a file; `overrides` are as in `load_recipe`.
    `data` is any map-style dataset of dicts, used in place of the recipe's shards, and `val` one in place of data.val.
    After the last step, do what `train.then` lists, unless `then` is false; what reads shards is refused with `data`.
    Raises `RecipeError`, `DataError`, `OutputError`, `StorageError`, `HangError`, each with what to do; `Interrupted`
    after SIGTERM, SIGHUP or Ctrl-C, with all steps saved.
    """
    recipe = with_overrides(recipe, overrides) if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    if then and data is not None:
        afterwards.refuse_then_without_shards(recipe)
    with open_session(recipe) as session:
        with session.stop.interruptible(BEFORE_FIRST_STEP):
            trainer, earlier = prepare(recipe, session.accelerator, data)
            if then:
                afterwards.check_then(recipe, trainer.model)
            run = start_run(trainer, earlier, session, val)
        with session.stop.deferred():
            outcome = finish_run(run)
            draw_outliers(trainer, outcome.folder)
        if then:
            with session.stop.interruptible(AFTER_LAST_STEP):
                afterwards.run_then(recipe)
        return outcome
