"""Peak memory of a piece of work, and the operations that take its time, both as torch's allocator and profiler see it.

in   a function without arguments
out  bytes that were held at once, beyond what was held before; the share of each operation in the time
"""

import os
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from mvssl.bench.comparison import Way

# The profiler of a machine without GPU reports this lack, and its own start, on every use.
QUIET = {"KINETO_LOG_LEVEL": "99"}


def measure_peak(way: Way, device: torch.device) -> int:
    """Return the bytes of tensors that `way` holds at once. Memory inside libraries of matrix products is left out."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        way()
        return torch.cuda.max_memory_allocated(device) - before
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        way()
    raw: Any = profiler.profiler
    changes = [event for event in raw.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(changes, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def measure_operations(way: Way) -> dict[str, float]:
    """Return the microseconds of CPU time that each of torch's operations takes in `way`, such as `aten::addmm_`."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        way()
    events: Any = profiler.key_averages()
    return {event.key: event.self_cpu_time_total for event in events}
