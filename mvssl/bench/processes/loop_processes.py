"""The training loop in processes of its own: two processes beside one, and both beside a program that wants a core.

in   a `Setting` of `mvssl.bench.growth`, with random images
out  seconds of a step, as tables and JSON

A process waits for its turn without using a core. So ways with other threads or another environment take turns, as
all ways of a benchmark do.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mvssl.bench.comparison import ROUNDS, build_row, finish_comparison
from mvssl.bench.growth import Setting, start_loop
from mvssl.bench.timing import check_json_file
from mvssl.distributed import collectives
from mvssl.process.threads import SETTINGS, SPINS

CORES = 2
SETTING = Setting(batch=256)
_SERVE = "from mvssl.bench.processes.loop_processes import serve; serve()"
_BUSY = "while True: pass"


class StepTime(NamedTuple):
    """Seconds of one step: wall time of the slowest process, and CPU time of the first."""

    wall: float
    cpu: float


class LoopProcesses:
    """The loop of `setting` in `processes` processes with `threads` threads each, inside a `with` block."""

    def __init__(self, setting: Setting, processes: int, threads: int, environment: Mapping[str, str]):
        environment = {**environment, "OMP_NUM_THREADS": str(threads)}  # else accelerate chooses a number
        shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_find_free_port())}
        self.members = [
            subprocess.Popen(
                [sys.executable, "-c", _SERVE, json.dumps(asdict(setting)), str(threads)],
                env={**environment, **(shared | {"RANK": str(n), "LOCAL_RANK": str(n)} if processes > 1 else {})},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            )
            for n in range(processes)
        ]  # fmt: skip

    def __enter__(self) -> "LoopProcesses":
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.kill()
            member.communicate()

    def take_steps(self, steps: int) -> StepTime:
        """Take steps in all processes at once."""
        for member in self.members:
            assert member.stdin is not None
            member.stdin.write(f"{steps}\n")
        times = []
        for member in self.members:
            assert member.stdout is not None
            times.append(StepTime(*json.loads(member.stdout.readline())))
        return StepTime(max(each.wall for each in times) / steps, times[0].cpu / steps)


def serve() -> None:
    """Take as many steps as each line of standard input says, and print the wall and CPU seconds they took."""
    setting, threads = Setting(**json.loads(sys.argv[1])), int(sys.argv[2])
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        loop, _ = start_loop(setting, Path(folder))
        for line in sys.stdin:
            collectives.gather_objects(None)  # all processes start together
            begin, used = time.perf_counter(), time.process_time()
            for _ in range(int(line)):
                next(loop)
            spent = [time.perf_counter() - begin, time.process_time() - used]
            print(json.dumps(spent), file=sys.__stdout__, flush=True)


def bench_processes(
    *, setting: Setting = SETTING, rounds: int = ROUNDS, steps: int = 8, json_file: str | Path | None = None
) -> dict[str, Any]:
    """Compare two processes of one thread with one process of two threads, at the same global batch, by wall time."""
    check_json_file(json_file)
    ours, other = f"{CORES} processes", f"1 process, {CORES} threads"
    environment = {**os.environ}
    with (
        LoopProcesses(setting, CORES, 1, environment) as several,
        LoopProcesses(setting, 1, CORES, environment) as one,
    ):
        spent = _take_turns({ours: several, other: one}, rounds, steps)
    medians = sorted(spent[ours], key=lambda each: each.wall)[rounds // 2]
    row = build_row(f"narrow ResNet-18, batch {setting.batch}", _walls(spent), samples=setting.batch)
    return finish_comparison(
        "processes", [row], clock="wall", json_file=json_file, setting=asdict(setting),
        bottleneck=f"each process waits for the other {max(0.0, 1 - medians.cpu / medians.wall):.0%} of the time",
    )  # fmt: skip


def bench_busy(
    *, setting: Setting = SETTING, rounds: int = ROUNDS, steps: int = 6, json_file: str | Path | None = None
) -> dict[str, Any]:
    """Compare the loop alone and beside a process that keeps one core busy, and torch's own spinning, by wall time."""
    check_json_file(json_file)
    own = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    ours, other = "short spins", "torch's spins"
    with (
        LoopProcesses(setting, 1, CORES, own | {"GOMP_SPINCOUNT": SPINS}) as short,
        LoopProcesses(setting, 1, CORES, own) as long,
    ):
        alone = _walls(_take_turns({ours: short, other: long}, rounds, steps))
        with _busy_process():
            beside = _walls(_take_turns({ours: short, other: long}, rounds, max(1, steps // 3)))
    rows = [
        build_row("alone", alone, samples=setting.batch),
        build_row("beside a busy process", beside, samples=setting.batch),
        build_row("kept beside it", {ours: beside[ours], "alone": alone[ours]}, samples=setting.batch),
    ]
    return finish_comparison(
        "busy", rows, clock="wall", json_file=json_file, setting=asdict(setting),
        bottleneck="a thread that shares its core with the busy process; the others wait for it in every operation",
    )  # fmt: skip


def _take_turns(ways: Mapping[str, LoopProcesses], rounds: int, steps: int) -> dict[str, list[StepTime]]:
    """Return the times of each way in each round, after a round that is not counted."""
    spent: dict[str, list[StepTime]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            time_of_step = ways[name].take_steps(steps)
            if number:
                spent[name].append(time_of_step)
    return spent


def _walls(spent: Mapping[str, list[StepTime]]) -> dict[str, list[float]]:
    return {name: [each.wall for each in times] for name, times in spent.items()}


@contextlib.contextmanager
def _busy_process() -> Iterator[None]:
    """Keep one core busy inside the block."""
    busy = subprocess.Popen([sys.executable, "-c", _BUSY])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


def _find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
