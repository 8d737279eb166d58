"""Measure two parts of the training loop alone: drawing views on the device, and reading shards."""

import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvssl.bench.timing import FOREVER, check_json_file, compute_rates, finish_result, time_calls
from mvssl.data import Batch, loader
from mvssl.recipe import Recipe, ViewConfig
from mvssl.training.preparation import open_training_shards
from mvssl.views import ViewSet, build_views


def bench_views(
    *, preset: str = "simclr", sizes: tuple[int, ...] = (32, 64, 224), batch_size: int = 64, seconds: float = 2.0,
    json_file: str | Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return views per second of a preset, on random colour images of each size that are already on the device."""
    check_json_file(json_file)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result = {}
    for size in sizes:
        views = build_views(
            {"a": ViewConfig.model_validate({"from": "image", "augment": preset, "size": size})},
            {"image": (3, size, size)},
        )
        image = torch.randint(256, (batch_size, 3, size, size), dtype=torch.uint8, device=device)
        place = itertools.count()

        def draw(views: ViewSet = views, image: Tensor = image, place: Iterator[int] = place) -> None:
            rows = torch.arange(batch_size) + next(place) * batch_size
            views(Batch({"image": image}, rows, rows, {}, []), 0, device)

        result[str(size)] = compute_rates(time_calls(draw, seconds, device), batch_size)
    return finish_result(
        {"bench": "views", "preset": preset, "batch_size": batch_size, "sizes": result}, device, json_file
    )


def bench_reader(recipe: Recipe, *, seconds: float = 4.0, json_file: str | Path | None = None) -> dict[str, Any]:
    """Return samples per second from the recipe's shards to batches, with its workers and without training."""
    check_json_file(json_file)
    source = open_training_shards(recipe.data)
    table = recipe.data
    batches = iter(loader(source, batch_size=table.batch_size, seed=0, stop_step=FOREVER, workers=table.workers))
    for _ in range(2 * table.workers + 1):
        next(batches)
    spent = time_calls(lambda: next(batches), seconds, torch.device("cpu"))
    result = {"bench": "reader", "batch_size": table.batch_size, "workers": table.workers, "samples": len(source)}
    # the mean, not the median: each burst has as many batches as there are workers
    pace = {"samples_per_second": table.batch_size / statistics.mean(spent), "batches": len(spent)}
    return finish_result({**result, **pace}, torch.device("cpu"), json_file)
