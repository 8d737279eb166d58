"""How the cost of a training step grows with the batch, the number of views and the resolution.

in   nothing; images are random bytes, made on the spot
out  for each axis the seconds of a step by part, on one thread, as a table, JSON and a picture

One value changes at a time. The others stay at those of `Setting`.
"""

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mvssl.bench.comparison import Row, build_row, finish_comparison, name_largest, one_thread
from mvssl.bench.speed import Stopwatch, run_loop
from mvssl.bench.synthetic import RandomImages
from mvssl.bench.timing import FOREVER, check_output_files
from mvssl.files import MEASURED, write_picture
from mvssl.recipe import Recipe, parse_recipe
from mvssl.training.accelerator import make_accelerator
from mvssl.training.preparation import prepare_trainer

PARTS = {"views": "the views", "model": "the model", "rest": "everything else"}


@dataclass(frozen=True)
class Setting:
    """A training step to measure: `batch` images of `pixels` x `pixels`, each drawn as `views` views."""

    batch: int = 128
    views: int = 2
    pixels: int = 32


AXES: dict[str, tuple[int, ...]] = {
    "batch": (32, 64, 128, 256, 512),
    "views": (2, 3, 4, 6, 8),
    "pixels": (32, 64, 96, 128),
}
LABELS = {"batch": "images in a batch", "views": "views of an image", "pixels": "pixels a side"}


def bench_growth(*, rounds: int = 3, steps: int = 3, json_file: str | Path | None = None) -> dict[str, Any]:
    """Measure steps at each value of each axis; print a table and draw a picture next to `json_file`.

    Values of one axis take turns, `steps` steps in each of `rounds` rounds. Raise `OutputError`.
    """
    picture = check_output_files(json_file)
    settings = {axis: [replace(Setting(), **{axis: value}) for value in values] for axis, values in AXES.items()}
    growth: dict[str, list[dict[str, float]]] = {}
    rows: list[Row] = []
    with one_thread(), tempfile.TemporaryDirectory() as folder:
        for axis, chosen in settings.items():
            measured = measure_steps(chosen, rounds, steps, Path(folder))
            growth[axis] = [{axis: value} | parts for value, (_, parts) in zip(AXES[axis], measured, strict=True)]
            rows += [row for row, _ in measured]
    last = {PARTS[part]: growth["pixels"][-1][part] for part in PARTS}
    result = finish_comparison(
        "growth", rows, bottleneck=f"at {AXES['pixels'][-1]} pixels, {name_largest(last)}", clock="wall",
        json_file=json_file, growth=growth, setting=asdict(Setting()),
    )  # fmt: skip
    if picture is not None:
        draw_growth(growth, picture)
    return result


def measure_steps(settings: list[Setting], rounds: int, steps: int, folder: Path) -> list[tuple[Row, dict[str, float]]]:
    """Return the row of each setting and the seconds of a step by part, each the mean over all steps."""
    loops = [start_loop(setting, folder) for setting in settings]
    spent: list[list[float]] = [[] for _ in settings]
    for number in range(rounds + 1):  # the first round is not counted
        for (loop, watch), times in zip(loops, spent, strict=True):
            watch.on = number > 0
            before = sum(watch.seconds.values())
            for _ in itertools.islice(loop, steps):
                pass
            watch.enter("")
            if number:
                times.append((sum(watch.seconds.values()) - before) / steps)
    return [
        (build_row(describe(setting), {"ours": times}, samples=setting.batch), _sum_parts(watch, rounds * steps))
        for setting, (_, watch), times in zip(settings, loops, spent, strict=True)
    ]


def describe(setting: Setting) -> str:
    """Return a setting in words."""
    return f"{setting.batch} images, {setting.views} views, {setting.pixels} pixels"


def start_loop(setting: Setting, folder: Path) -> tuple[Iterator[int], Stopwatch]:
    """Return the training loop of a setting, which takes a step at each `next`, and the watch of its parts."""
    recipe = build_recipe(setting, folder)
    images = RandomImages(setting.pixels, setting.pixels, setting.batch)
    trainer = prepare_trainer(recipe, make_accelerator(recipe, cpu=True), images)
    trainer.steps = FOREVER
    watch = Stopwatch(trainer.device)
    return run_loop(trainer, folder, watch), watch


def build_recipe(setting: Setting, folder: Path) -> Recipe:
    """Return a recipe of SimCLR's views without blur, a narrow ResNet-18 and the contrastive loss."""
    view = {"from": "image", "count": setting.views, "augment": "simclr", "blur_p": 0.0, "size": setting.pixels}
    return parse_recipe(
        {
            "data": {"batch_size": setting.batch, "workers": 0, "columns": {"image": {"field": "png"}}},
            "views": {"image": view},
            "encoder": {"name": "resnet18", "options": {"channels": [16, 32, 64, 128]}},
            "objective": {"name": "cmc", "pairs": "image_0"},
            "train": {"steps": 1, "out": str(folder / "run"), "trackers": []},
        }
    )


def _sum_parts(watch: Stopwatch, steps: int) -> dict[str, float]:
    """Return the seconds of a step by the parts of `PARTS`."""
    own = {part: watch.seconds[part] / steps for part in ("views", "model")}
    return own | {"rest": sum(watch.seconds.values()) / steps - sum(own.values())}


def draw_growth(growth: dict[str, list[dict[str, float]]], out: Path) -> None:
    """Draw the parts of a step's time over the values of each axis."""
    figure = Figure(figsize=(9.6, 3.2), layout="constrained", dpi=150)
    for axes, (axis, points) in zip(figure.subplots(1, len(growth)), growth.items(), strict=True):
        _draw_axis(axes, [point[axis] for point in points], points, LABELS[axis])
    figure.axes[0].set_ylabel("milliseconds of a step")
    figure.axes[0].legend(frameon=False, loc="upper left")
    write_picture(figure, out, MEASURED.hint)


def _draw_axis(axes: Axes, values: list[float], points: list[dict[str, float]], label: str) -> None:
    parts = [[1e3 * point[part] for point in points] for part in reversed(PARTS)]
    axes.stackplot(values, *parts, labels=list(reversed(PARTS.values())), alpha=0.85)
    axes.set(xlabel=label, xlim=(values[0], values[-1]), ylim=(0, None), xticks=values)
    axes.spines[["top", "right"]].set_visible(False)
