"""Time blocks of steps and calls, compute rates with their spread, and describe the machine."""

import contextlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from mvssl.errors import OutputError
from mvssl.files import MEASURED, check_output, write_file
from mvssl.runs.versions import versions

FOREVER = 10**9  # steps of a loop that ends earlier


def estimate_steps(number: int, share: float, warmup: int) -> int:
    """Return how many steps fit into all of the time, if `number` steps took a `share` of it."""
    return max(number + 1, round(number / share)) if number > warmup and share else FOREVER


def time_steps(step: Iterator[Any], settle: int, steps: int, accelerator: Accelerator) -> float:
    """Return seconds per step over `steps` steps, after `settle` untimed steps. All processes start together."""
    for _ in range(settle):
        next(step)
    synchronize(accelerator.device)
    accelerator.wait_for_everyone()
    begin = time.perf_counter()
    for _ in range(steps):
        next(step)
    synchronize(accelerator.device)
    return (time.perf_counter() - begin) / steps


def time_calls(work: Callable[[], Any], seconds: float, device: torch.device) -> list[float]:
    """Return the seconds of each call: at least three calls and `seconds` in all, after one call that is not timed."""
    work()
    synchronize(device)
    spent: list[float] = []
    while len(spent) < 3 or sum(spent) < seconds:
        begin = time.perf_counter()
        work()
        synchronize(device)
        spent.append(time.perf_counter() - begin)
    return spent


def compute_rates(seconds: list[float], samples: int) -> dict[str, Any]:
    """Return samples per second: the median over blocks, and their spread."""
    pace = [samples / s for s in seconds]
    return {"samples_per_second": statistics.median(pace), "spread": [min(pace), max(pace)]}


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def check_json_file(json_file: str | Path | None) -> None:
    """Raise `OutputError` before anything is measured, if the result cannot be written."""
    if json_file and _main():
        check_output(json_file, MEASURED)


def finish_result(result: dict[str, Any], device: torch.device, json_file: str | Path | None) -> dict[str, Any]:
    """Return `result` with hardware and versions; write it to `json_file`, if given. Raises `OutputError`."""
    result = {
        **result,
        "hardware": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "versions": versions(),
    }
    if json_file and _main():
        write_file(json_file, json.dumps(result, indent=1) + "\n", OutputError, MEASURED.hint)
    return result


def _main() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def show(result: dict[str, Any]) -> None:
    """Print a result, one line per number."""
    for name, value in result.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{key} {_short(one)}" for key, one in value.items())
            print(f"{name:18} {inner}")
        else:
            print(f"{name:18} {_short(value)}")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    spread = isinstance(value, list) and value and isinstance(value[0], float)
    return " to ".join(_short(one) for one in value) if spread else str(value)


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
