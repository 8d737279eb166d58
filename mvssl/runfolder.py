"""A run folder: what it holds, who may write in it, whether a recipe may continue it, and how a command ended.

RUN/recipe.yaml     the recipe, with the statistics that were measured from the data
    metrics.jsonl   one line per log interval, and one per check
    verdict.json    what the last check thought of the run
    mispaired.*     samples whose views do not seem to show one thing: lines and a picture
    bad.jsonl       samples that could not be decoded, and what took their place
    versions.json   of Python and the libraries
    exit.json       how the last command ended: code and reason
    checkpoints/    see mvssl.checkpoint
    trackers/       TensorBoard's files
"""

import contextlib
import errno
import fcntl
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mvssl import distributed
from mvssl.errors import ElsewhereError, MvsslError, OutputError, RecipeError, StorageError
from mvssl.files import write_aside
from mvssl.jsons import parsed, step_of
from mvssl.recipe import Recipe, load_recipe, to_yaml
from mvssl.versions import versions

# A change here alters neither the samples, nor the model, nor the loss, so a run may be continued with it.
FREE = ("data.root", "data.pack", "data.train", "data.val", "data.label", "data.workers", "data.max_bad", "optim")
FREE += ("evaluate", "train.epochs", "train.steps", "train.out", "train.save_every", "train.keep", "train.log_every")
FREE += ("train.check_every", "train.check_samples", "train.trackers", "train.then")


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Make the run folder, see that it can be written, and hold it: one run at a time. Raises `OutputError`."""
    held: list[IO] = []
    distributed.from_main(lambda: held.append(_lock(folder)))
    try:
        yield
    finally:
        for lock in held:
            lock.close()  # which also ends its hold, as a kill would


def _lock(folder: Path) -> IO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        lock = open(folder / ".lock", "w")  # noqa: SIM115 held until the run ends
    except OSError as error:
        why = "it is no folder" if isinstance(error, FileExistsError) else error.strerror
        said = f"run folder {folder} cannot be written: {why}; choose another with train.out=FOLDER"
        raise OutputError(said) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise OutputError(f"another process is training in {folder}; wait for it, or choose train.out=FOLDER") from None
    except OSError:
        pass  # a file system without locks
    (folder / "exit.json").unlink(missing_ok=True)  # it told how the command before ended
    return lock


def recipe_of(recipe: Recipe) -> Recipe | None:
    """What the run that `recipe` continues was trained with, or None for a new run."""
    folder = Path(recipe.train.out)
    has_steps = any((folder / "checkpoints").glob("step-*"))
    return load_recipe(folder / "recipe.yaml") if has_steps and (folder / "recipe.yaml").is_file() else None


def with_statistics(recipe: Recipe, before: Recipe | None) -> Recipe:
    """The recipe with `normalize: data` as the run measured it; another decoder may differ in the last digit."""
    views = dict(recipe.views)
    for name, view in views.items():
        known = before.views.get(name) if before else None
        if known and "normalize" in known.options and view.options.get("normalize", "data") == "data":
            views[name] = view.model_copy(update={"normalize": known.options["normalize"]})
    return recipe.model_copy(update={"views": views})


def refuse_changes(folder: Path, recipe: Recipe) -> list[str]:
    """The harmless differences between a run's recipe and `recipe`; raises `RecipeError` listing the harmful ones."""
    before = _flat(load_recipe(folder / "recipe.yaml").model_dump(mode="json"))
    now = _flat(recipe.model_dump(mode="json"))
    changed = [key for key in before | now if before.get(key) != now.get(key)]
    free = [key for key in changed if any(key == name or key.startswith(f"{name}.") for name in FREE)]
    harmful = [f"  {key}: {before.get(key)} -> {now.get(key)}" for key in changed if key not in free]
    if harmful:
        raise RecipeError(
            f"{folder} holds a run of another recipe; these changes alter its samples, model or loss:\n"
            + "\n".join(harmful)
            + "\ncontinue it with the values it had, or start a new one with train.out=FOLDER"
        )
    return [f"{key}: {before.get(key)} -> {now.get(key)}" for key in free]


def _flat(tables: Any, place: str = "") -> dict[str, Any]:
    if isinstance(tables, dict) and tables:
        return {key: value for name, inner in tables.items() for key, value in _flat(inner, f"{place}.{name}").items()}
    return {place.lstrip("."): tables}


def describe(folder: Path, recipe: Recipe) -> None:
    """Write recipe.yaml and versions.json."""
    write_aside(folder / "recipe.yaml", to_yaml(recipe))
    write_aside(folder / "versions.json", json.dumps(versions(), indent=1))


def other_versions(folder: Path) -> list[str]:
    """What to tell where the run was trained with other versions: defaults and rounding may differ."""
    try:
        before = parsed((folder / "versions.json").read_text(errors="replace"))
    except OSError:
        return []
    if not isinstance(before, dict):
        return []
    now = versions()
    return [
        f"  version of {name}: {before[name]} -> {now[name]}"
        for name in now
        if before.get(name, now[name]) != now[name]
    ]


@contextlib.contextmanager
def noted(folder: Path) -> Iterator[None]:
    """Write to RUN/exit.json how what is inside ends; turns a full disk and a lost process into sentences."""
    try:
        yield
    except BaseException as raised:
        error = _known(raised) or raised
        note_exit(folder, error)
        raise error from raised.__cause__ if error is raised else raised
    note_exit(folder, None)


def _known(error: BaseException) -> MvsslError | None:
    """The sentence for what the world around a run does to it: a process that is gone, a disk that is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG):
        place = error.filename or "to the run folder"
        return StorageError(f"writing {place} failed: {error.strerror}; earlier checkpoints are intact")
    first = str(error).strip().partition("\n")[0]
    gone = re.search("closed by peer|reset by peer|connection refused|timed out", first, re.IGNORECASE)
    if distributed.world() > 1 and isinstance(error, RuntimeError) and gone:
        return ElsewhereError(f"another process of this run ended or hangs ({gone.group()})")
    return None


def note_exit(folder: Path, error: BaseException | None) -> None:
    """Write exit.json: launchers swallow exit codes, a file does not.

    Of several processes the one that knows the reason writes; those that it took along write only where nobody did.
    """
    code = error.code if isinstance(error, MvsslError) else 0 if error is None else 1
    reason = "finished" if error is None else str(error) or type(error).__name__
    with contextlib.suppress(OSError, StorageError):
        known = (folder / "exit.json").exists()
        if (
            not folder.is_dir()
            or (error is None and distributed.rank())
            or (isinstance(error, ElsewhereError) and known)
        ):
            return
        write_aside(folder / "exit.json", json.dumps({"code": code, "reason": reason}, indent=1))


def cut_lines_after(file: Path, step: int) -> None:
    """Drop the lines of a JSON-lines file that a resumed run is about to write again."""
    if file.is_file():
        kept = [line for line in file.read_text(errors="replace").splitlines() if _step_of(line) <= step]
        write_aside(file, "".join(f"{line}\n" for line in kept))


def _step_of(line: str) -> float:
    step = step_of(parsed(line))
    return float("inf") if step is None else step  # a line cut short by a kill
