"""CPU seconds from the command to the first step, by phase.

in   a recipe
out  a table of phases beside the import of torch and timm alone, and JSON

Each round starts a process of its own, since a process imports a package only once.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mvssl.bench.comparison import ROUNDS, build_row, finish_comparison, name_largest
from mvssl.bench.timing import check_json_file
from mvssl.errors import RecipeError
from mvssl.recipe import Recipe, to_yaml

# what `mvssl train` does, with a mark after each phase; it prints the CPU seconds at each mark
_COMMAND = """
import json, sys, time
marks = {}
def mark(name): marks[name] = time.process_time()
from mvssl.cli import commands
mark("the command")
from mvssl.process.imports import uncollected_imports
from mvssl.recipe import load_recipe
recipe = load_recipe(sys.argv[1], ["train.then=[]"])
mark("the recipe")
with uncollected_imports():
    import torch
    mark("importing torch")
    import timm
    mark("importing timm")
    from mvssl.pipeline import api
    mark("importing the rest")
with api.open_session(recipe) as session:
    trainer, earlier = api.prepare(recipe, session.accelerator)
    mark("data, views and model")
    run = api.start_run(trainer, earlier, session)
    mark("checks and loader")
    with run.log, run.watchdog, run.saver:
        next(run.steps)
    mark("the first step")
print(json.dumps(marks))
"""
_IMPORTS = "import time, torch, timm; print(time.process_time())"


def bench_start(recipe: Recipe, *, rounds: int = ROUNDS, json_file: str | Path | None = None) -> dict[str, Any]:
    """Measure a new run of the recipe up to its first step. Loader workers are separate processes and do not count.

    Raise `RecipeError` for a recipe that cannot start, and `OutputError`.
    """
    check_json_file(json_file)
    starts, imports = [], []
    for _ in range(rounds + 1):  # the first round fills caches of files
        with tempfile.TemporaryDirectory() as folder:
            starts.append(_start_once(recipe, Path(folder)))
        imports.append(float(_run(_IMPORTS)))
    starts, imports = starts[1:], imports[1:]
    phases = {name: statistics.median(start[name] for start in starts) for name in starts[0]}
    whole = [sum(start.values()) for start in starts]
    rows = [build_row("command to first step", {"ours": whole, "torch and timm imported": imports})]
    rows += [build_row(f"  {name}", {"ours": [start[name] for start in starts]}) for name in phases]
    return finish_comparison("start", rows, bottleneck=name_largest(phases), json_file=json_file, phases=phases)


def _start_once(recipe: Recipe, folder: Path) -> dict[str, float]:
    """Return the CPU seconds of each phase."""
    train = recipe.train.model_copy(update={"out": str(folder / "run"), "trackers": []})
    file = folder / "recipe.yaml"
    file.write_text(to_yaml(recipe.model_copy(update={"train": train})))
    marks = json.loads(_run(_COMMAND, str(file)).splitlines()[-1])
    ends = [0.0, *marks.values()]
    return {name: end - begin for name, begin, end in zip(marks, ends, ends[1:], strict=False)}


def _run(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RecipeError(f"bench start: the run did not start: {(done.stderr.splitlines() or [''])[-1]}")
    return done.stdout
