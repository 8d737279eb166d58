"""What tests of disturbed runs share: a recipe in a file, acts in the middle of a step, and what the run left.

in   a folder with shards in data/train; what to do at which step in which process
out  a recipe file and a `prepare` for `forked_commands.start`; the newest saved step; whether weights are equal
"""

import os
import time
from pathlib import Path

import small_runs
import torch
import yaml

from mvssl.checkpoints import store
from mvssl.training.step import Trainer


def recipe_file(root: Path, out: str = "run", **changes) -> Path:
    file = root / f"{out}.yaml"
    changes = {"train__steps": 12, "train__save_every": 100, **changes}
    file.write_text(yaml.safe_dump(small_runs.tables(root / "data", root / out, **changes)))
    return file


def at_step(number: int, act, rank: int | None = None):
    """For `forked_commands.start`: call `act()` in the middle of the step of that number, from 0."""

    def prepare(own: int) -> None:
        step = Trainer.step

        def stepped(self, batch, now, *given, **keywords):
            if now == number and rank in (None, own):
                act()
            return step(self, batch, now, *given, **keywords)

        Trainer.step = stepped

    return prepare


def send(*numbers: int, gap: float = 0.005):
    def act() -> None:
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(gap)

    return act


def newest_step(run: Path) -> int:
    found = store.newest(run)
    return store.step_in_name(found) if found else 0


def same_weights(one: Path, other: Path, step: int) -> bool:
    a, b = small_runs.weights(one, step), small_runs.weights(other, step)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
