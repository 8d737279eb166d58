"""How long the training loop waits for a save, beside a save for whose end it waits.

in   the number of parameters
out  seconds of both, of the write beside the loop, and what the steps lose meanwhile, as a table and JSON

Each round takes steps, saves beside the loop, takes steps until the checkpoint is complete, and saves once more and
waits for the end.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mvssl.bench.comparison import build_row, finish_comparison
from mvssl.bench.synthetic import RandomImages
from mvssl.bench.timing import FOREVER, check_json_file, synchronize
from mvssl.checkpoints.state import State
from mvssl.process.signals import StopRequest
from mvssl.recipe import Recipe, parse_recipe
from mvssl.training.accelerator import make_accelerator
from mvssl.training.checkpointing import Saver, checkpoint_bytes
from mvssl.training.fault_counts import FaultCounter
from mvssl.training.log import Log
from mvssl.training.preparation import prepare_trainer
from mvssl.training.step import run_steps
from mvssl.training.watchdog import Watchdog

_LAYERS, _PIXELS, _BATCH, _STEPS = 4, 8, 16, 3  # layers of the network; steps before each save
_HANG = 3600.0  # seconds


def bench_save(
    *, parameters: int = 100_000_000, rounds: int = 5, json_file: str | Path | None = None
) -> dict[str, Any]:
    """Return how long the loop waits for a save (`waits`), and how long the save takes beside it (`takes`), in seconds.

    `share` is the median over rounds of the first divided by the second, `slowed` the seconds that the steps beside the
    save took longer than others. `buffer` is the memory of the kept copies in bytes. Raise `OutputError`.
    """
    check_json_file(json_file)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = build_recipe(parameters, folder)
        trainer = prepare_trainer(recipe, make_accelerator(recipe), RandomImages(_PIXELS, _PIXELS, _BATCH))
        trainer.steps = FOREVER
        log = Log(trainer.accelerator, folder, start=0, steps=FOREVER, every=FOREVER, batch_size=_BATCH)
        log.console.quiet = True
        stop = StopRequest()
        ledger = FaultCounter(folder, recipe.data, State(step=0))
        steps = run_steps(trainer, trainer.batches(0, FOREVER), ledger, log, stop)
        with Saver(trainer, folder, ledger, log, Watchdog(folder, _HANG, stop, 0)) as saver:
            _take_steps(steps, _STEPS, trainer.device)
            saver.save(must=True)  # the first save makes the folder
            measured = [_measure_round(steps, saver) for _ in range(rounds)]
    waits, takes, slowed, complete = (list(column) for column in zip(*measured, strict=True))
    share = statistics.median(a / b for a, b in zip(waits, takes, strict=True))
    row = build_row("the loop waits", {"beside the loop": waits, "until it is complete": complete})
    copies = checkpoint_bytes(trainer)
    bottleneck = (
        f"the copy of {copies / 1e6:,.0f} MB, {share:.1%} of the {statistics.median(takes):.2f} s until the checkpoint "
        f"is complete; steps beside the save lose {statistics.median(slowed):.2f} s to it"
    )
    return finish_comparison(
        "save", [row], bottleneck=bottleneck, clock="wall", device=trainer.device, json_file=json_file,
        share=share, waits=waits, takes=takes, slowed=slowed, buffer=copies, parameters=parameters,
    )  # fmt: skip


def build_recipe(parameters: int, folder: Path) -> Recipe:
    """Return a recipe of a network with about that many parameters, whose step takes little time."""
    width = math.isqrt(parameters // _LAYERS) + 1
    return parse_recipe(
        {
            "data": {"batch_size": _BATCH, "workers": 0, "columns": {"image": {"field": "png"}}},
            "views": {"image": {"from": "image", "count": 2, "augment": "crop_flip", "size": _PIXELS}},
            "encoder": {"name": "mlp", "options": {"widths": [width] * (_LAYERS + 1), "img_size": _PIXELS}},
            "objective": {"name": "cmc", "embed": _PIXELS},
            "train": {"steps": 1, "out": str(folder), "trackers": []},
        }
    )


def _measure_round(steps: Iterator[int], saver: Saver) -> tuple[float, float, float, float]:
    """Return seconds: the loop waits; the save takes beside it; the steps lose; a save takes until it is complete."""
    device, ends = saver.trainer.device, []
    usual = statistics.median(_take_steps(steps, _STEPS, device))
    begin = time.perf_counter()
    saver.save()
    synchronize(device)  # a copy from a device goes on after the call, and the next step waits for it
    waited = time.perf_counter() - begin
    saver.written.add_done_callback(lambda _: ends.append(time.perf_counter()))
    beside = []
    while not ends:
        beside += _take_steps(steps, 1, device)
    _take_steps(steps, 1, device)
    begin_complete = time.perf_counter()
    saver.save(must=True)
    return waited, ends[0] - begin, sum(beside) - usual * len(beside), time.perf_counter() - begin_complete


def _take_steps(steps: Iterator[int], count: int, device: Any) -> list[float]:
    """Return the seconds of each of `count` steps."""
    spent = []
    for _ in range(count):
        begin = time.perf_counter()
        next(steps)
        synchronize(device)
        spent.append(time.perf_counter() - begin)
    return spent
