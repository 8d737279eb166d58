"""The time to draw the random parameters of the views of a batch: crops, flips, jitter and blur of SimCLR.

in   nothing; no image is needed
out  for each batch size the time to draw, beside kornia and torchvision (sample by sample), and the time to receive
     what a loader's worker drew, which is all that the training process then does
"""

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kornia.augmentation as kornia
import torch
from torchvision import transforms

from mvssl.bench.comparison import Row, compare, finish_comparison, name_largest, one_thread, time_block
from mvssl.bench.timing import CPU, check_json_file
from mvssl.data.drawn import DrawnParameters
from mvssl.random import Draws
from mvssl.recipe import ViewConfig
from mvssl.views import ViewSet, build_views

VIEWS, PIXELS = 10, 32
BATCHES = (8, 256, 4096)
MOST_SINGLE = 256  # largest batch for ways that draw sample by sample; their time is proportional to the batch


def bench_draws(
    *, batches: tuple[int, ...] = BATCHES, rounds: int = 7, block: float = 0.1, json_file: str | Path | None = None
) -> dict[str, Any]:
    """Measure drawing for ten views of preset `simclr` at each batch size. Raise `OutputError`."""
    check_json_file(json_file)
    view = ViewConfig.model_validate({"from": "image", "count": VIEWS, "augment": "simclr", "size": PIXELS})
    views = build_views({"image": view}, {"image": (3, PIXELS, PIXELS)})
    with one_thread():
        rows = [row for n in batches for row in compare_draws(views, n, rounds, block)]
        parts = time_parts(views, batches[-1])
    return finish_comparison(
        "draws", rows, bottleneck=f"at batch {batches[-1]:,}, {name_largest(parts)}", json_file=json_file,
        parts=parts, views=VIEWS,
    )  # fmt: skip


def compare_draws(views: ViewSet, n: int, rounds: int, block: float) -> list[Row]:
    """Return the time to draw for `n` samples, and what the training process does with parameters that workers drew."""
    position = torch.arange(n)
    drawn = views.draw(position, 0)
    sent = pickle.dumps(drawn.layout)  # the block itself is in shared memory

    def draw() -> DrawnParameters:
        return views.draw(position, 0)

    def receive() -> dict[str, Any]:
        pickle.loads(sent)
        return drawn.on(CPU) if drawn.belongs_to(0, position) else {}

    others = {"kornia": draw_with_kornia(n)}
    if n <= MOST_SINGLE:
        others["torchvision"] = draw_with_torchvision(n)
    return [
        compare(f"batch {n:,}: draw", {"ours": draw, **others}, rounds=rounds, block=block),
        compare(f"batch {n:,}: receive", {"ours": receive, "draw": draw}, rounds=rounds, block=block),
    ]


def time_parts(views: ViewSet, n: int, calls: int = 3) -> dict[str, float]:
    """Return the seconds that each part of drawing takes for all views of `n` samples."""
    draws, geometry = Draws(0, torch.arange(n), scope="view"), views.view("image").geometry
    assert geometry is not None
    own = {name: draws.within(name) for name in views.names}
    placements = {name: geometry.draw(own[name]) for name in views.names}
    drawn = {name: view.draw(own[name], placements[name]) for name, view in views.draw.views.items()}
    parts: dict[str, Callable[[], object]] = {
        "the placement": lambda: [geometry.draw(own[name]) for name in views.names],
        "colour and blur": lambda: [view.draw(own[name], placements[name]) for name, view in views.draw.views.items()],
        "packing": lambda: DrawnParameters.pack(0, draws.position, drawn),
    }
    seconds = {name: time_block(part, calls, "cpu", CPU) for name, part in parts.items()}
    whole = time_block(lambda: views.draw(draws.position, 0), calls, "cpu", CPU)
    return seconds | {"everything else": max(0.0, whole - sum(seconds.values()))}


def draw_with_torchvision(n: int) -> Callable[[], object]:
    """Return a way to draw the same parameters one sample after the other, as transforms of a dataset do."""
    image = torch.zeros(3, PIXELS, PIXELS)
    jitter, blur = transforms.ColorJitter(0.8, 0.8, 0.8, 0.2), transforms.GaussianBlur(13, (0.1, 2.0))

    def draw_sample() -> list[object]:
        ranges = jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
        return [
            transforms.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]),
            torch.rand(1) < 0.5,
            torch.rand(1) < 0.8 and jitter.get_params(*ranges),  # pyright: ignore[reportArgumentType]
            torch.rand(1) < 0.2,
            torch.rand(1) < 0.5 and blur.get_params(0.1, 2.0),
        ]

    return lambda: [draw_sample() for _ in range(VIEWS * n)]


def draw_with_kornia(n: int) -> Callable[[], object]:
    """Return a way to draw the same parameters for a batch with kornia."""
    size = 2 * math.ceil(3 * 2.0) + 1
    steps = kornia.AugmentationSequential(
        kornia.RandomResizedCrop((PIXELS, PIXELS), (0.08, 1.0)),
        kornia.RandomHorizontalFlip(),
        kornia.ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
        kornia.RandomGrayscale(p=0.2),
        kornia.RandomGaussianBlur((size, size), (0.1, 2.0), p=0.5),
    )
    shape = torch.Size((n, 3, PIXELS, PIXELS))
    return lambda: [steps.forward_parameters(shape) for _ in range(VIEWS)]
