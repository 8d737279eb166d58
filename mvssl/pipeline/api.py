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
    """Train the run that `recipe` describes, or continue it. The result does not depend on the number of processes.

    `recipe` is a `Recipe` or the path of a file. `overrides` are as in `load_recipe`.
    `data` is any map-style dataset of dicts. It replaces the recipe's shards. `val` replaces `data.val`.
    After the last step, the steps in `train.then` run, unless `then` is false. If `data` is given, steps that read
    shards are refused.

    Raises `RecipeError`, `DataError`, `OutputError`, `StorageError` or `HangError`. The message of each error says what
    to do. Raises `Interrupted` after SIGTERM, SIGHUP or Ctrl-C. All steps are saved before.
    """
    recipe = with_overrides(recipe, overrides) if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    if then and data is not None:
        afterwards.refuse_without_shards(recipe)
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
