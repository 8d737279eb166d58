"""Measuring: blocks and calls in seconds, rates with their spread, and the machine that they were measured on."""

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

FOREVER = 10**9  # steps; the order of samples runs on across epochs


def planned(number: int, share: float, warmup: int) -> int:
    """Steps that fit into all of the time, by the pace of the `number` steps that took a `share` of it."""
    return max(number + 1, round(number / share)) if number > warmup and share else FOREVER


def block(step: Iterator[None], settle: int, steps: int, accelerator: Accelerator) -> float:
    """Seconds per step over `steps` steps, after `settle` that are not timed; all processes begin together."""
    for _ in range(settle):
        next(step)
    wait(accelerator.device)
    accelerator.wait_for_everyone()
    begin = time.perf_counter()
    for _ in range(steps):
        next(step)
    wait(accelerator.device)
    return (time.perf_counter() - begin) / steps


def repeat(work: Callable[[], Any], seconds: float, device: torch.device) -> list[float]:
    """Seconds of each call, for as long as asked and at least three calls after one that is not timed."""
    work()
    wait(device)
    spent: list[float] = []
    while len(spent) < 3 or sum(spent) < seconds:
        begin = time.perf_counter()
        work()
        wait(device)
        spent.append(time.perf_counter() - begin)
    return spent


def rates(seconds: list[float], samples: int) -> dict[str, Any]:
    """Samples per second: the median over blocks and their spread."""
    pace = [samples / s for s in seconds]
    return {"samples_per_second": statistics.median(pace), "spread": [min(pace), max(pace)]}


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def try_file(json_file: str | Path | None) -> None:
    """See that the result can be written, before anything is measured. Raises `OutputError`."""
    if json_file and _main():
        check_output(json_file, MEASURED)


def write(found: dict[str, Any], device: torch.device, json_file: str | Path | None) -> dict[str, Any]:
    """`found` with hardware and versions, and in a file if one is named. Raises `OutputError`."""
    whole = {
        **found,
        "hardware": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "versions": versions(),
    }
    if json_file and _main():
        write_file(json_file, json.dumps(whole, indent=1) + "\n", OutputError, MEASURED.hint)
    return whole


def _main() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def show(found: dict[str, Any]) -> None:
    """Print what was measured, a line per number."""
    for name, value in found.items():
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
