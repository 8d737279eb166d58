"""One command for a machine with a GPU: exactness, the loop beside bare models, and where the host waits.

in   nothing; images and JPEG shards are made on the spot
out  a table, and JSON that is written after each part, so that a part that fails or takes too long loses no other

On a CPU the same parts run with small models and images, to rehearse the command.
"""

import contextlib
import functools
import itertools
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from mvssl.bench.comparison import Row, build_row, describe_rows, print_comparison
from mvssl.bench.devices.equality import Equality, compare_losses
from mvssl.bench.devices.host_waits import Trace, trace_steps
from mvssl.bench.speed import Stopwatch, run_loop, run_model, time_block
from mvssl.bench.synthetic import RandomImages, write_jpeg_shards
from mvssl.bench.timing import FOREVER, check_json_file, finish_result
from mvssl.recipe import Recipe, parse_recipe
from mvssl.training.accelerator import arithmetic_of, make_accelerator
from mvssl.training.preparation import prepare_trainer
from mvssl.training.step import Trainer

SHARE_FOR_START = 0.8  # of the minutes; a part that would begin later is left out


class Sizes(NamedTuple):
    """What to measure. Encoders of timm by name with their options; images of a batch; JPEG files; steps of a block."""

    encoders: dict[str, dict[str, Any]]
    pixels: int
    batch: int
    samples: int
    blocks: int
    steps: int
    precision: str


GPU = Sizes({"resnet50": {}, "vit_small_patch16_224": {}}, 224, 128, 4096, 5, 10, "bf16")
REHEARSAL = Sizes({"test_resnet": {}, "test_vit": {"img_size": 32}}, 32, 16, 64, 2, 2, "fp32")


class Measured:
    """What the parts have measured so far, and why others are missing."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.equality: list[Equality] = []
        self.traces: dict[str, Trace] = {}
        self.missing: dict[str, str] = {}  # part -> reason


def bench_device(*, minutes: float = 8.0, json_file: str | Path | None = None) -> dict[str, Any]:
    """Measure all parts in at most about `minutes`, print a table and write `json_file` after each part.

    `missing` of the result has each part that failed or found no time, with the reason. Raise `OutputError`.
    """
    check_json_file(json_file)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = GPU if device.type == "cuda" else REHEARSAL
    begin, found = time.monotonic(), Measured()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, measure in list_parts(sizes, device, Path(folder), found).items():
            print(f"{name} ...", flush=True)
            if time.monotonic() - begin > SHARE_FOR_START * 60 * minutes:
                found.missing[name] = "no time was left"
                continue
            try:
                measure()
            except Exception as error:  # any error of a new machine; the other parts still count
                found.missing[name] = "".join(traceback.format_exception(error)[-8:])
            result = write_result(found, device, json_file)
    print_result(result, found)
    return result


def list_parts(sizes: Sizes, device: torch.device, folder: Path, found: Measured) -> dict[str, Callable[[], None]]:
    """Return the parts by name, the most important first; each adds to `found`."""

    def compare(encoder: str, jpeg: bool) -> None:
        found.rows.append(compare_with_bare(encoder, sizes, folder, jpeg))

    def trace(encoder: str) -> None:
        found.traces[encoder] = trace_training(encoder, sizes, folder)

    parts: dict[str, Callable[[], None]] = {"equality": lambda: found.equality.extend(compare_losses(device))}
    for encoder in sizes.encoders:
        parts[f"{encoder} from bytes"] = functools.partial(compare, encoder, False)
        parts[f"{encoder} from JPEG"] = functools.partial(compare, encoder, True)
    parts["host waits"] = functools.partial(trace, next(iter(sizes.encoders)))
    return parts


def compare_with_bare(encoder: str, sizes: Sizes, folder: Path, jpeg: bool) -> Row:
    """Return the training loop on bytes in memory or on JPEG shards, beside its model on random tensors."""
    with opened_loop(encoder, sizes, folder, jpeg) as (trainer, loop):
        model, settle = run_model(trainer), 2 * trainer.recipe.data.workers + 3
        ours, bare = [], []
        for _ in range(sizes.blocks):
            ours.append(time_block(loop, settle, sizes.steps, trainer))
            bare.append(time_block(model, 3, sizes.steps, trainer))
    what = f"{encoder} at {sizes.pixels}, {'JPEG shards' if jpeg else 'bytes'}"
    return build_row(what, {"the loop": ours, "bare model": bare}, samples=sizes.batch)


def trace_training(encoder: str, sizes: Sizes, folder: Path) -> Trace:
    """Return where ten steps of the loop wait for the device."""
    with opened_loop(encoder, sizes, folder, jpeg=False) as (trainer, loop):
        for _ in itertools.islice(loop, 2 * trainer.recipe.data.workers + 3):
            pass
        return trace_steps(lambda: [next(loop) for _ in range(10)], trainer.device)


@contextlib.contextmanager
def opened_loop(encoder: str, sizes: Sizes, folder: Path, jpeg: bool) -> Iterator[tuple[Trainer, Iterator[int]]]:
    """Yield a trainer and its loop, which takes a step at each `next`; then end its loader processes."""
    recipe = build_recipe(encoder, sizes, folder, jpeg)
    data = None if jpeg else RandomImages(256, 341, sizes.samples)
    if jpeg and not (shards := folder / "jpeg").is_dir():
        shards.mkdir()
        write_jpeg_shards(shards, sizes.samples)
    with arithmetic_of(recipe):
        trainer = prepare_trainer(recipe, make_accelerator(recipe), data)
        trainer.steps = FOREVER
        loop = run_loop(trainer, folder, Stopwatch(trainer.device))
        try:
            yield trainer, loop
        finally:
            cast(Any, loop).close()  # a generator


def build_recipe(encoder: str, sizes: Sizes, folder: Path, jpeg: bool) -> Recipe:
    """Return a recipe of SimCLR's views and the contrastive loss, for images of 341x256 pixels."""
    workers = max(1, min(14, (os.cpu_count() or 2) - 2))
    column = {"field": "jpg", "size": [256, 341]}
    return parse_recipe(
        {
            "data": {
                "root": str(folder), "train": "jpeg/*.tar" if jpeg else [], "columns": {"image": column},
                "batch_size": sizes.batch, "workers": workers,
            },
            "views": {"image": {"from": "image", "count": 2, "augment": "simclr", "size": sizes.pixels}},
            "encoder": {"name": encoder, "options": sizes.encoders[encoder]},
            "objective": {"name": "cmc"},
            "train": {"steps": 1, "out": str(folder / "run"), "precision": sizes.precision, "trackers": []},
        }
    )  # fmt: skip


def write_result(found: Measured, device: torch.device, json_file: str | Path | None) -> dict[str, Any]:
    """Return what is measured so far, and write it to `json_file`, if given."""
    more = {
        "equality": [equality._asdict() | {"holds": equality.holds} for equality in found.equality],
        "traces": {name: trace.as_dict() for name, trace in found.traces.items()},
        "missing": found.missing,
    }
    result = describe_rows("device", found.rows, name_bottleneck(found.traces), "wall") | more
    return finish_result(result, device, json_file)


def name_bottleneck(traces: dict[str, Trace]) -> str:
    """Return which operation takes longest in the traced steps."""
    if not traces:
        return "no steps were traced"
    encoder, trace = next(iter(traces.items()))
    return (
        f"{trace.kernels[0].name} takes longest in a step of {encoder}, {trace.kernels[0].seconds:.3g} s of ten steps"
    )


def print_result(result: dict[str, Any], found: Measured) -> None:
    """Print the rows as a table, then the host waits, then what is missing."""
    print_comparison(result)
    for what, precision, ours, plain in found.equality:
        print(f"error against float64, {what}, {precision}: ours {ours:.2g}, plain {plain:.2g}")
    for encoder, trace in found.traces.items():
        print(f"host waits in ten steps of {encoder}: {len(trace.places) or 'no'} places")
        for place, count in trace.places.items():
            print(f"  {place}  {count} times")
        for call in trace.waits:
            print(f"  {call.name}  {call.count} times, {1e3 * call.seconds:.1f} ms")
    for name, reason in found.missing.items():
        print(f"missing: {name}: {reason.strip()}")
