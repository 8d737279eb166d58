"""Kills training processes many times, and counts the acknowledged steps that are lost. Not a part of `pytest`.

    python tests/sweeps/kills.py --random 200 --injected 200 --json kills.json

Each try forks one or two training processes, kills them or signals them, once or several times, and starts the same
command again until the run is complete. A step is acknowledged when its checkpoint was written, and for a signal that
asks to stop, when it was done. At the end of each run its weights must equal, bit for bit, those of a run that nobody
disturbed. Random tries kill after a random time. Injected tries kill at the n-th call of an operating-system function
inside a save, of a step that is saved for the first time or again after an interrupted check; at the n-th tensor that
a save copies; or at the n-th step that is taken while a save is being written, which is slowed for this.
"""

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import forked_commands
import small_runs
import torch
import yaml

from mvssl.checkpoints import store
from mvssl.checkpoints.tensor_file import TensorFile
from mvssl.monitoring.check import Checker
from mvssl.training.step import Trainer

STEPS, SAVE_EVERY = 40, 3
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}
POINTS = [(os, "fsync"), (os, "replace"), (Path, "rename"), (Path, "mkdir"), (shutil, "rmtree"), (os, "open")]
PLACES = [("save", 60), ("save", 60), ("copy", 12), ("beside", 20)]  # where to inject, and how many points there are
NAMES = {"save": "inside a save", "copy": "between copies of a save", "beside": "in a step beside a save"}


class Try:
    """One start of the run, and what its processes report through a pipe."""

    def __init__(self, recipe: Path, world: int, inject: tuple[str, int, list[int]] | None):
        self.read, write = os.pipe()

        def prepare(rank: int) -> None:
            _report_to(write, rank)
            if inject and rank == 0:
                _inject(*inject)

        self.forked = forked_commands.start(["train", recipe], recipe.parent, world, prepare)
        os.close(write)

    def reports(self) -> dict[str, int]:
        """The last step that was saved, and the last that was done."""
        text = b""
        while part := os.read(self.read, 65536):
            text += part
        os.close(self.read)
        last: dict[str, int] = {}
        for line in text.decode().splitlines():
            kind, _, step = line.partition(" ")
            last[kind] = int(step)
        return last


def _report_to(pipe: int, rank: int) -> None:
    save, step = store.write_checkpoint, Trainer.step

    def saved(run, number, *given):
        made = save(run, number, *given)
        os.write(pipe, f"saved {number}\n".encode())
        return made

    def stepped(self, batch, number, *given, **keywords):
        made = step(self, batch, number, *given, **keywords)
        if rank == 0:
            os.write(pipe, f"done {number + 1}\n".encode())
        return made

    store.write_checkpoint, Trainer.step = saved, stepped


def _inject(where: str, point: int, signals: list[int]) -> None:
    """At the `point`-th call at a place, see the top of this file, or in a check, send the signals to oneself."""
    if where == "check":
        check = Checker._measure

        def looked(self, stopped):
            for number in signals:
                os.kill(os.getpid(), number)
            return check(self, stopped)

        Checker._measure = looked
        return
    inside, left = [False], [point]
    save = store.write_checkpoint

    def saved(*given):
        inside[0] = True
        try:
            return save(*given)
        finally:
            inside[0] = False

    store.write_checkpoint = saved
    if where == "copy":
        inside = [True]
        _count(TensorFile, "copy_to", inside, left, signals)
        return
    if where == "beside":
        write = store._write_hashed
        store._write_hashed = lambda *given: (time.sleep(0.02), write(*given))[1]
        _count(Trainer, "step", inside, left, signals)
        return
    for owner, name in POINTS:
        _count(owner, name, inside, left, signals)


def _count(owner, name: str, inside: list[bool], left: list[int], signals: list[int]) -> None:
    plain = getattr(owner, name)

    def counted(*given, **keywords):
        if inside[0]:
            left[0] -= 1
            if left[0] == 0:
                for number in signals:
                    os.kill(os.getpid(), number)
        return plain(*given, **keywords)

    setattr(owner, name, counted)


class Run:
    """A run folder that is disturbed until it is complete."""

    def __init__(self, folder: Path, world: int):
        self.folder, self.world = folder, world
        small_runs.write_shards(folder / "data" / "train")
        self.recipe = folder / "recipe.yaml"
        changes = {"train__steps": STEPS, "train__save_every": SAVE_EVERY, "train__check_every": 4}
        tables = small_runs.tables(folder / "data", folder / "run", data__workers=world - 1, **changes)
        self.recipe.write_text(yaml.safe_dump(tables))

    def step(self) -> int:
        with suppress(Exception):
            found = store.newest(self.folder / "run")
            return store.step_in_name(found) if found else 0
        return -1

    def attempt(self, disturb, inject=None) -> tuple[int, list[str]]:
        """Start, disturb, wait; steps lost, and what was wrong."""
        before = self.step()
        started = Try(self.recipe, self.world, inject)
        sent = disturb(started) if disturb else {}
        codes, last = started.forked.wait(), started.reports()
        asked = [number for numbers in sent.values() for number in numbers]
        asked += inject[2] if inject else []
        graceful = asked and all(number in CODES for number in asked)
        acknowledged = max(before, last.get("saved", 0))
        all_asked = graceful and len(sent) == self.world
        if all_asked:
            acknowledged = max(acknowledged, last.get("done", 0))
        wrong = []
        now = self.step()
        if now < acknowledged:
            wrong.append(f"step {acknowledged} was acknowledged, {now} is there")
        if all_asked:  # signals that come within one moment are delivered in any order
            expected = {CODES[number] for number in asked} | {0}
            if not set(codes.values()) <= expected:
                wrong.append(f"codes {codes}, not {expected}")
        if any(code in (1, 70) for code in codes.values()):
            wrong.append(f"codes {codes}")
        return max(0, acknowledged - now), wrong

    def finish(self, weights: dict) -> list[str]:
        started = Try(self.recipe, self.world, None)
        codes = started.forked.wait()
        started.reports()
        if set(codes.values()) != {0}:
            return [f"could not be completed: {codes}"]
        mine = small_runs.weights(self.folder / "run", STEPS)
        same = all(torch.equal(mine[name], weights[name]) for name in weights)
        return [] if same else ["weights differ from the undisturbed run's"]


def straight(world: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder), world)
        started = Try(run.recipe, world, None)
        codes = started.forked.wait()
        started.reports()
        if set(codes.values()) != {0}:
            sys.exit(started.forked.stderr())
        return small_runs.weights(Path(folder) / "run", STEPS)


def random_disturbance(numbers: random.Random, world: int):
    """Which processes get which signals, when: kill -9, or one to four requests to stop, milliseconds apart."""
    graceful = numbers.random() < 0.5
    ranks = list(range(world)) if numbers.random() < 0.6 else [numbers.randrange(world)]
    first = numbers.choice(list(CODES))
    count = numbers.randint(1, 4) if graceful else 1
    delay, gaps = numbers.uniform(0.0, 1.6 + world), [numbers.choice([0, 0.002, 0.02, 0.2]) for _ in range(count)]

    def disturb(started: Try) -> dict[int, list[int]]:
        time.sleep(delay)
        sent: dict[int, list[int]] = {}
        for turn, gap in enumerate(gaps):
            for rank in ranks:
                number = (first if turn == 0 else numbers.choice(list(CODES))) if graceful else signal.SIGKILL
                started.forked.signal(rank, number)
                sent.setdefault(rank, []).append(number)
            time.sleep(gap)
        return sent

    return disturb, f"{'signals' if graceful else 'kill -9'}, {len(ranks)} of {world} processes"


def sweep(kind: str, count: int, seed: int) -> dict:
    numbers, worlds = random.Random(seed), (1, 2)
    weights = {world: straight(world) for world in worlds}
    tries, lost, faults, runs = Counter(), 0, [], 0
    points = {world: itertools.count(1) for world in worlds}
    while sum(tries.values()) < count:
        for world in worlds:
            with tempfile.TemporaryDirectory() as folder:
                run, runs = Run(Path(folder), world), runs + 1
                for _ in range(12):
                    if sum(tries.values()) >= count or run.step() >= STEPS:
                        break
                    if kind == "random":
                        disturb, name = random_disturbance(numbers, world)
                        steps, wrong = run.attempt(disturb)
                    else:
                        signals = numbers.choice([[signal.SIGKILL], [signal.SIGKILL], [signal.SIGTERM] * 3])
                        again = numbers.random() < 0.3
                        if again:  # so that the next start checks, and saves the same step again
                            run.attempt(None, ("check", 0, [signal.SIGTERM]))
                        where, most = numbers.choice(PLACES)
                        point = 1 + next(points[world]) % most
                        steps, wrong = run.attempt(None, (where, point, signals))
                        what = "kill -9" if signals == [signal.SIGKILL] else "signals"
                        name = f"{what} {NAMES[where]}, {world} processes"
                        name += ", after an interrupted check" if again else ""
                    tries[name] += 1
                    lost += steps
                    faults += [f"run {runs}, {name}: {text}" for text in wrong]
                    print(f"\r{sum(tries.values())} of {count} {kind}, {lost} steps lost, {len(faults)} faults", end="")
                faults += [f"run {runs}: {text}" for text in run.finish(weights[world])]
                if faults and not lost:
                    shutil.copytree(folder, Path(tempfile.gettempdir()) / "kills-last-fault", dirs_exist_ok=True)
    print()
    return {"kind": kind, "tries": dict(tries), "runs": runs, "steps_lost": lost, "faults": faults}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--random", type=int, default=200)
    options.add_argument("--injected", type=int, default=200)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    found = [sweep(kind, count, given.seed) for kind, count in (("random", given.random), ("injected", given.injected))]
    print(json.dumps(found, indent=1))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1))
    sys.exit(any(each["steps_lost"] or each["faults"] for each in found))


if __name__ == "__main__":
    main()
