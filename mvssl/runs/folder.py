"""A run folder: its files, which process may write in it, and whether a recipe may continue it.

RUN/.mvssl          the mark of a run folder: mvssl writes into no other folder that is not empty
    recipe.yaml     the recipe, with the statistics that were measured from the data
    metrics.jsonl   one line per log interval, and one per check
    verdict.json    the diagnosis of the last check
    mispaired.*     samples whose views do not seem to show one thing: lines and a picture
    bad.jsonl       samples that could not be decoded, and the samples that replaced them
    versions.json   versions of Python and the libraries
    exit.json       how the last command ended, or which process runs: see mvssl.runs.exit_record
    checkpoints/    see mvssl.checkpoints.store
    trackers/       TensorBoard's files
"""

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from mvssl.checkpoints import store
from mvssl.distributed import collectives
from mvssl.errors import OutputError, RecipeError
from mvssl.files import write_file
from mvssl.recipe import Recipe, load_recipe, to_yaml
from mvssl.recipe.messages import table_differences
from mvssl.runs import exit_record
from mvssl.runs.line_files import cut_lines_after
from mvssl.runs.versions import versions
from mvssl.text import warn

MARK = ".mvssl"
# A change of these keys alters neither samples, model nor loss, so a run may be continued with it.
FREE = ("data.root", "data.pack", "data.train", "data.val", "data.label", "data.workers", "data.max_bad", "optim")
FREE += ("evaluate", "train.epochs", "train.steps", "train.out", "train.save_every", "train.keep", "train.log_every")
FREE += ("train.check_every", "train.check_samples", "train.trackers", "train.then", "train.hang_timeout")

_locks: set[IO] = set()
# A forked loader process must not keep the lock of a training process that was killed.
os.register_at_fork(after_in_child=lambda: [lock.close() for lock in _locks])


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make and mark the run folder, and lock it inside the block, so that only one command writes a run.

    Raise `OutputError` if it cannot be written, holds other files than a run's, or is locked by another process.
    """
    lock = collectives.run_on_main(lambda: _lock(folder), share=False)
    if lock is None:  # not the main process
        yield
        return
    _locks.add(lock)
    try:
        yield
    finally:
        _locks.discard(lock)
        lock.close()  # a killed process releases it too


def _lock(folder: Path) -> IO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        refuse_other_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
        lock = open(folder / ".lock", "w")  # noqa: SIM115 held until the run ends
    except OSError as error:
        why = "it is no folder" if isinstance(error, FileExistsError) else error.strerror
        text = f"run folder {folder} cannot be written: {why}; choose another with train.out=FOLDER"
        raise OutputError(text) from None
    before = exit_record.read_exit(folder)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise _held_by(folder, before) from None
    except OSError:  # a file system without locks: rely on exit.json
        if before is not None and before.code is None and before.alive:
            lock.close()
            raise _held_by(folder, before) from None
    if before is not None and before.code is None:
        warn(f"the last command on {folder} was {before}")
    (folder / MARK).write_text("A run folder of mvssl. Remove this file, and mvssl no longer writes here.\n")
    exit_record.write_running(folder)
    return lock


def _held_by(folder: Path, record: exit_record.ExitRecord | None) -> OutputError:
    who = f"process {record.process} on {record.host}" if record and record.code is None else "another process"
    return OutputError(f"{who} is training in {folder}; wait for it, or choose train.out=FOLDER")


def refuse_other_folder(folder: Path) -> None:
    """Raise `OutputError` if a folder holds files and is no run folder. Hidden files do not count."""
    if is_run_folder(folder):
        return
    others = sorted(entry.name for entry in folder.iterdir() if not (entry.name.startswith(".") and entry.is_file()))
    others = [name for name in others if name != "lost+found"]
    if others:
        named = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise OutputError(
            f"{folder} is no run folder and holds {named}, which a run might overwrite; choose a new folder with "
            f"train.out=FOLDER, or make the empty file {folder / MARK} to use this folder"
        )


def is_run_folder(folder: Path) -> bool:
    """Return whether mvssl made the folder: it has the mark, or the files of runs from before the mark existed."""
    if (folder / MARK).is_file():
        return True
    written = (folder / "recipe.yaml").is_file() or exit_record.read_exit(folder) is not None
    return ((folder / ".lock").is_file() and written) or bool(store.list_checkpoints(folder))


def recipe_of(folder: Path, checkpoint: Path) -> Recipe:
    """Return the recipe that a checkpoint of a run was trained with: RUN/recipe.yaml, or the checkpoint's own copy.

    If recipe.yaml is damaged or describes another run, the copy is used, with a warning. Raise `RecipeError` or
    `DataError` if neither can be read.
    """
    copy = checkpoint / store.RECIPE
    try:
        recipe = load_recipe(folder / "recipe.yaml")
        if not copy.is_file() or not differences(load_recipe(copy), recipe)[1]:
            return recipe
        why = "does not describe the run of the checkpoint"
    except RecipeError as error:
        if not copy.is_file():
            raise
        why = f"is missing or damaged ({str(error).splitlines()[0]})"
    warn(f"{folder / 'recipe.yaml'} {why}; the copy in {checkpoint.name} is used")
    return load_recipe(copy)


def with_statistics(recipe: Recipe, before: Recipe | None) -> Recipe:
    """Return the recipe with the run's statistics for `normalize: data`, as another decoder may give other digits."""
    views = dict(recipe.views)
    for name, view in views.items():
        known = before.views.get(name) if before else None
        if known and "normalize" in known.options and view.options.get("normalize", "data") == "data":
            views[name] = view.model_copy(update={"normalize": known.options["normalize"]})
    return recipe.model_copy(update={"views": views})


def refuse_changes(folder: Path, before: Recipe, recipe: Recipe) -> list[str]:
    """Return the allowed differences between a run's recipe and `recipe`. Raise a `RecipeError` that lists others."""
    free, harmful = differences(before, recipe)
    if harmful:
        raise RecipeError(
            f"{folder} holds a run of another recipe; these changes alter its samples, model or loss:\n"
            + "\n".join(f"  {line}" for line in harmful)
            + "\ncontinue it with the old values, or start a new run with train.out=FOLDER"
        )
    return free


def differences(before: Recipe, now: Recipe) -> tuple[list[str], list[str]]:
    """Return two lists of lines `key: old -> new`: changes that a continued run allows, and others."""
    free, harmful = [], []
    for key, old, new in table_differences("", before.model_dump(mode="json"), now.model_dump(mode="json")):
        allowed = any(key == name or key.startswith(f"{name}.") for name in FREE)
        (free if allowed else harmful).append(f"{key}: {old} -> {new}")
    return free, harmful


def describe(folder: Path, recipe: Recipe, done: int) -> None:
    """Write recipe.yaml and versions.json, and drop the lines that an earlier process logged after step `done`.

    A new run keeps no line, not even that of a check before the first step.
    """
    write_file(folder / "recipe.yaml", to_yaml(recipe))
    write_file(folder / "versions.json", json.dumps(versions(), indent=1))
    for name in ("metrics.jsonl", "bad.jsonl"):
        cut_lines_after(folder / name, done or -1)
