"""Parts of the loop alone: drawing views on the device, and reading shards."""

import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvssl.bench.timing import FOREVER, rates, repeat, try_file, write
from mvssl.data import Batch, loader
from mvssl.recipe import Recipe, View
from mvssl.training.preparation import open_training_shards
from mvssl.views import ViewSet, build_views


def bench_views(
    *, preset: str = "simclr", sizes: tuple[int, ...] = (32, 64, 224), batch_size: int = 64, seconds: float = 2.0,
    json_file: str | Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Views per second of a preset on random colour images of each size, already on the device."""
    try_file(json_file)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found = {}
    for size in sizes:
        views = build_views(
            {"a": View.model_validate({"from": "image", "augment": preset, "size": size})}, {"image": (3, size, size)}
        )
        image = torch.randint(256, (batch_size, 3, size, size), dtype=torch.uint8, device=device)
        place = itertools.count()

        def draw(views: ViewSet = views, image: Tensor = image, place: Iterator[int] = place) -> None:
            rows = torch.arange(batch_size) + next(place) * batch_size
            views(Batch({"image": image}, rows, rows, {}, []), 0, device)

        found[str(size)] = rates(repeat(draw, seconds, device), batch_size)
    return write({"bench": "views", "preset": preset, "batch_size": batch_size, "sizes": found}, device, json_file)


def bench_reader(recipe: Recipe, *, seconds: float = 4.0, json_file: str | Path | None = None) -> dict[str, Any]:
    """Samples per second from the recipe's shards to batches, with its workers and nothing else to do."""
    try_file(json_file)
    source = open_training_shards(recipe.data)
    table = recipe.data
    batches = iter(loader(source, batch_size=table.batch_size, seed=0, stop_step=FOREVER, workers=table.workers))
    for _ in range(2 * table.workers + 1):
        next(batches)
    spent = repeat(lambda: next(batches), seconds, torch.device("cpu"))
    found = {"bench": "reader", "batch_size": table.batch_size, "workers": table.workers, "samples": len(source)}
    # batches come in bursts of as many as there are workers, so the mean is the rate and the median is not
    pace = {"samples_per_second": table.batch_size / statistics.mean(spent), "batches": len(spent)}
    return write({**found, **pace}, torch.device("cpu"), json_file)
