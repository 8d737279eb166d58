"""Run a function in real gloo processes and get back what each returned.

    from gloo_processes import processes          # tests/ is on sys.path; or take the fixture of the same name

    def value(scale):                   # at the top level of the test module, so that it can be pickled
        return distributed.sum_over_processes(torch.ones(3) * scale)

    def test_two_processes_sum():
        first, second = processes(value, 2.0)              # one result per rank, in rank order

in   a function and its arguments; results may be anything that pickles, detached tensors included
out  [result of rank 0, result of rank 1, ...]; an exception in any rank is raised here with its traceback

The processes are spawned once, meet over file://, check the world size, and are kept for later calls: importing torch
costs more than most tests. Every call starts from torch.manual_seed(0). A call that fails or takes too long ends them.
"""

import atexit
import multiprocessing.connection
import pickle
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing

_groups: dict[int, "_Group"] = {}


def processes(function: Callable[..., Any], *arguments: Any, world: int = 2, timeout: float = 120) -> list[Any]:
    """Call `function(*arguments)` in `world` gloo processes at once; results in rank order."""
    if world not in _groups:
        _groups[world] = _Group(world)
    try:
        return _groups[world].call(function, arguments, timeout)
    except BaseException:
        _groups.pop(world).stop()
        raise


@atexit.register
def _stop_all() -> None:
    for world in list(_groups):
        _groups.pop(world).stop()


class _Group:
    def __init__(self, world: int):
        context = torch.multiprocessing.get_context("spawn")
        meeting = f"file://{tempfile.mkdtemp(prefix='gloo-')}/meeting"
        self.pipes, self.members = [], []
        for rank in range(world):
            ours, theirs = context.Pipe()
            member = context.Process(target=_serve, args=(rank, world, meeting, theirs))
            member.start()
            theirs.close()
            self.pipes.append(ours)
            self.members.append(member)
        for pipe in self.pipes:  # starting up does not count towards a call's time limit
            assert pipe.poll(120), "a process did not start"
            assert pipe.recv_bytes() == b"ready"

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...], timeout: float) -> list[Any]:
        job = pickle.dumps((function, arguments))
        for pipe in self.pipes:
            pipe.send((list(sys.path), job))
        waiting, answers = set(self.pipes), {}
        deadline = time.monotonic() + timeout
        while waiting:
            ready = multiprocessing.connection.wait(waiting, max(deadline - time.monotonic(), 0))
            if not ready:
                break
            for pipe in ready:
                waiting.remove(pipe)
                answers[pipe] = _receive(pipe)
                if answers[pipe][1]:  # the others may wait for this one for ever
                    deadline = min(deadline, time.monotonic() + 1)
        failures = [f"rank {self.pipes.index(pipe)}: {text}" for pipe, (_, text) in answers.items() if text]
        if failures:
            raise AssertionError("\n".join(failures))
        if waiting:
            silent = sorted(map(self.pipes.index, waiting))
            raise TimeoutError(f"no answer from ranks {silent} within {timeout} s")
        return [answers[pipe][0] for pipe in self.pipes]

    def stop(self) -> None:
        for pipe, member in zip(self.pipes, self.members, strict=True):
            pipe.close()
            member.terminate()
            member.join()


def _receive(pipe: Any) -> tuple[Any, str | None]:
    try:
        return pickle.loads(pipe.recv_bytes())
    except EOFError:
        return None, "the process died"


def _serve(rank: int, world: int, meeting: str, pipe: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    assert dist.get_world_size() == world
    pipe.send_bytes(b"ready")
    warnings.simplefilter("error")
    while True:
        try:
            path, job = pipe.recv()
        except EOFError:
            return
        sys.path[:] = path
        try:
            torch.manual_seed(0)
            function, arguments = pickle.loads(job)
            answer = (function(*arguments), None)
        except BaseException:
            answer = (None, traceback.format_exc())
        pipe.send_bytes(pickle.dumps(answer))
