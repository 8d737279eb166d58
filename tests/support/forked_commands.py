"""Runs of the command line in forked processes: real processes, signals and exit codes without the seconds of imports.

    run = start(["train", "recipe.yaml"], folder, world=2, prepare=patch)
    os.kill(run.children[1], signal.SIGTERM)
    assert run.wait() == {0: 143, 1: 143}

in   the words of a command line; what to change in the child before it runs, such as to patch a function
out  exit codes by rank, negative where a signal ended the process; standard error in FOLDER/stderr-RANK
"""

import multiprocessing.process
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from accelerate.state import AcceleratorState


class Forked:
    """Processes of one command, which meet over a free port where they are several."""

    def __init__(self, words: list[str], folder: Path, world: int, prepare: Callable[[int], None] | None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.folder = folder
        self.children = [_fork(words, folder, rank, world, port, prepare) for rank in range(world)]
        self.codes: dict[int, int] = {}
        self.ended: dict[int, float] = {}  # when, in seconds of the monotonic clock

    def signal(self, rank: int, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.children[rank], number)

    def wait(self, grace: float | None = 30, limit: float = 120) -> dict[int, int]:
        """Exit codes by rank. Like a launcher, it ends the others `grace` seconds after the first that fails.

        With `grace=None` it leaves them alone.
        """
        deadline = time.monotonic() + limit
        asked = False
        while len(self.codes) < len(self.children):
            for rank in self._running():
                found, status = os.waitpid(self.children[rank], os.WNOHANG)
                if found:
                    self.codes[rank] = os.waitstatus_to_exitcode(status)
                    self.ended[rank] = time.monotonic()
            if any(self.codes.values()) and not asked and grace is not None:
                asked, deadline = True, min(deadline, time.monotonic() + grace)
                for rank in self._running():
                    self.signal(rank, signal.SIGTERM)
            if time.monotonic() > deadline:
                for rank in self._running():
                    self.signal(rank, signal.SIGKILL)
            time.sleep(0.002)
        return self.codes

    def _running(self) -> list[int]:
        return [rank for rank in range(len(self.children)) if rank not in self.codes]

    def stderr(self, rank: int = 0) -> str:
        return (self.folder / f"stderr-{rank}").read_text()


def start(words: list[Any], folder: Path, world: int = 1, prepare: Callable[[int], None] | None = None) -> Forked:
    return Forked([str(word) for word in words], folder, world, prepare)


def train(given: dict[str, Any], folder: Path) -> Forked:
    """Start `mvssl train` on one process, with a recipe that is written to `folder`."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(given))
    return start(["train", folder / "recipe.yaml"], folder)


def _fork(words, folder: Path, rank: int, world: int, port: int, prepare) -> int:
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(os.open(folder / f"stderr-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), 2)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__  # pytest has put its own in their place
        AcceleratorState._reset_state(reset_partial_state=True)  # of a run of the parent
        multiprocessing.process._children.clear()  # the parent's, among them those of gloo_processes.py
        if world > 1:
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
            os.environ |= {name: str(value) for name, value in names.items()}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
        if prepare:
            prepare(rank)
        from mvssl.cli import main

        sys.argv = ["mvssl", *words]
        main.main()
        code = 0
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stderr.flush()
        os._exit(code)
