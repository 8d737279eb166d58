"""Time calls and methods, compute rates with their spread, and describe the machine.

in   what to time; a result as a dict
out  seconds; the result with hardware and versions, in a JSON file and as lines for the terminal
"""

import contextlib
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvssl.data import Batch
from mvssl.errors import OutputError, RecipeError
from mvssl.files import MEASURED, PICTURE, check_output, write_file
from mvssl.runs.versions import versions

FOREVER = 10**9  # steps of a loop that ends earlier
CPU = torch.device("cpu")


class Method:
    """A network in training, and the CPU seconds and steps that it has used.

    `step(share)` takes one step after `share` of the time; `encode` returns [n, d]. Each method has its own state of
    torch's generator, so that its draws do not depend on the other methods.
    """

    def __init__(self, step: Callable[[float], None], encode: Callable[[Batch], Tensor]):
        self.step, self.encode, self.rng_state = step, encode, torch.get_rng_state()
        self.spent, self.steps = 0.0, 0

    def train(self, share: float, seconds: float) -> None:
        """Take steps until `share` of all `seconds` is used."""
        torch.set_rng_state(self.rng_state)
        while self.spent < share * seconds:
            begin = time.process_time()
            self.step(self.spent / seconds)
            self.spent += time.process_time() - begin
            self.steps += 1
        self.rng_state = torch.get_rng_state()


def estimate_steps(number: int, share: float, warmup: int) -> int:
    """Return how many steps fit into all of the time, if `number` steps took a `share` of it."""
    return max(number + 1, round(number / share)) if number > warmup and share else FOREVER


def time_calls(work: Callable[[], Any], seconds: float, device: torch.device) -> list[float]:
    """Return the seconds of each call: at least three calls and `seconds` in all, after one call that is not timed."""
    time_call(work, device)
    spent: list[float] = []
    while len(spent) < 3 or sum(spent) < seconds:
        spent.append(time_call(work, device))
    return spent


def time_call(work: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds of one call, until the device has finished its work."""
    synchronize(device)
    begin = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - begin


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compute_rates(seconds: list[float], samples: int) -> dict[str, Any]:
    """Return samples per second: the median over blocks, and their spread."""
    rates = [samples / s for s in seconds]
    return {"samples_per_second": statistics.median(rates), "spread": [min(rates), max(rates)]}


def check_json_file(json_file: str | Path | None) -> None:
    """Raise `OutputError` before anything is measured, if the result cannot be written."""
    if json_file and _is_main():
        check_output(json_file, MEASURED)


def check_output_files(json_file: str | Path | None) -> Path | None:
    """Return the file of a picture beside `json_file`, after a check that both can be written; None without a file.

    Raise `OutputError`, or `RecipeError` if `json_file` itself has the name of a picture.
    """
    if json_file is None:
        return None
    picture = Path(json_file).with_suffix(".png")
    if picture == Path(json_file):
        raise RecipeError(f"--json {json_file}: the picture is drawn to {picture}; choose a name that ends in .json")
    check_json_file(json_file)
    check_output(picture, PICTURE._replace(hint=MEASURED.hint))
    return picture


def finish_result(result: dict[str, Any], device: torch.device, json_file: str | Path | None) -> dict[str, Any]:
    """Return `result` with hardware and versions; write it to `json_file`, if given. Raise `OutputError`."""
    result = {
        **result,
        "hardware": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "cpu": _name_cpu(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "versions": versions(),
    }
    if json_file and _is_main():
        write_file(json_file, json.dumps(result, indent=1) + "\n", OutputError, MEASURED.hint)
    return result


def _is_main() -> bool:
    """Return whether this is the main process, also before processes are connected."""
    return int(os.environ.get("RANK", "0")) == 0


def _name_cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def show(result: dict[str, Any]) -> None:
    """Print a result, one line per key."""
    for name, value in result.items():
        inner = ", ".join(f"{key} {_format(one)}" for key, one in value.items()) if isinstance(value, dict) else ""
        print(f"{name:18} {inner or _format(value)}")


def _format(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    spread = isinstance(value, list) and value and isinstance(value[0], float)
    return " to ".join(_format(one) for one in value) if spread else str(value)
