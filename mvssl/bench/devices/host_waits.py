"""Find where the host waits for a GPU: the lines of code, and the calls of CUDA.

in   a function that does some steps of work on a device
out  a `Trace`: places in the code that wait, CUDA's waiting calls with their time, and the kernels that take longest

torch reports each operation that makes the host wait, if it is asked to. The place that is named is the last line of
mvssl on the stack. A wait for an event, such as for the vote of an earlier step, appears only among the calls.
"""

import contextlib
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

import mvssl

PACKAGE = Path(mvssl.__file__).parent
MOST = 10  # kernels that are listed


class Call(NamedTuple):
    """A call of CUDA, a kernel or an operation: how often, and seconds in all."""

    name: str
    count: int
    seconds: float


class Trace(NamedTuple):
    """What a trace of some steps shows. `places` maps file:line of a host wait to how often it waited."""

    places: dict[str, int]
    waits: list[Call]
    kernels: list[Call]

    def as_dict(self) -> dict[str, Any]:
        """Return the trace for JSON."""
        calls = {"waits": self.waits, "kernels": self.kernels}
        return {"places": self.places, **{name: [call._asdict() for call in of] for name, of in calls.items()}}


def trace_steps(work: Callable[[], object], device: torch.device) -> Trace:
    """Run `work` twice, once to find the places that wait and once under torch's profiler. On a CPU nothing waits."""
    with _places_recorded(device) as places:
        work()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device.type == "cuda")
    with profile(activities=activities) as profiler:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    events: Any = profiler.key_averages()
    waits = [Call(e.key, e.count, e.self_cpu_time_total / 1e6) for e in events if _waits(e.key)]
    timed = [Call(e.key, e.count, _own_time(e, device) / 1e6) for e in events if not _waits(e.key)]
    return Trace(dict(places), waits, sorted(timed, key=lambda call: -call.seconds)[:MOST])


@contextlib.contextmanager
def _places_recorded(device: torch.device) -> Iterator[Counter[str]]:
    """Count the places that make the host wait for a CUDA device inside the block."""
    places: Counter[str] = Counter()
    if device.type != "cuda":
        yield places
        return

    def record(message: Warning | str, *_: Any, **__: Any) -> None:
        if "synchronizing CUDA operation" in str(message):
            places[find_place(traceback.extract_stack())] += 1

    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = record
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode(before)


def find_place(stack: traceback.StackSummary) -> str:
    """Return file:line of the innermost frame in mvssl outside its benchmarks, or else of the innermost frame."""
    frames = [frame for frame in stack if frame.filename != __file__]
    own = [frame for frame in frames if PACKAGE in Path(frame.filename).parents]
    measured = [frame for frame in own if PACKAGE / "bench" not in Path(frame.filename).parents]
    frame = (measured or own or frames)[-1]
    file = Path(frame.filename)
    return f"{file.relative_to(PACKAGE.parent) if frame in own else file.name}:{frame.lineno}"


def _waits(name: str) -> bool:
    return name.startswith("cuda") and name.endswith(("Synchronize", "cudaMemcpy"))


def _own_time(event: Any, device: torch.device) -> float:
    """Return microseconds of an event on the device, without its children."""
    return event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
