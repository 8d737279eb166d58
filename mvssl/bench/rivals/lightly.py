"""lightly's SimCLR, BYOL and VICReg, built as in its CIFAR-10 benchmark.

in   a recipe's encoder, optimizer, precision, batch size and seed, and the images
out  a `Method` for `mvssl bench rivals`: lightly's transforms, heads and loss, with the settings of the recipe; the
     table of `mvssl bench lightly`: our loop and model beside those of SimCLR

Heads and transforms of https://docs.lightly.ai/self-supervised-learning/getting_started/benchmarks.html (CIFAR-10):
jitter 0.5, no blur. That benchmark has no VICReg. The projector of VICReg is 2048 wide here, not 8192 as in the
paper, because the encoder is narrow. The optimizer there, SGD at 0.06 for 128 images, is for hundreds of epochs; see
docs/results.md.
"""

import copy
import importlib
import itertools
import math
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mvssl.bench.comparison import ROUNDS, Row, Way, build_row, compare, finish_comparison, one_thread
from mvssl.bench.speed import OURS, Stopwatch, build_trainer, run_loop, run_model, time_block
from mvssl.bench.timing import CPU, FOREVER, Method, check_json_file, estimate_steps
from mvssl.data import Batch, ShardSource, loader
from mvssl.distributed.devices import memory_format_for
from mvssl.errors import RecipeError
from mvssl.optim import build_optimizer, learning_rate, set_learning_rate
from mvssl.recipe import Recipe
from mvssl.training.step import Trainer

LIGHTLY, WORKERS = "lightly's SimCLR", 2
Loss = Callable[[Tensor, Tensor, float], Tensor]  # two views, and the share of the time that is used


def import_lightly(module: str, name: str) -> Any:
    """Return a class or function of lightly. Raise `RecipeError` if lightly is not installed."""
    try:
        return getattr(importlib.import_module(f"lightly.{module}"), name)
    except ImportError as error:
        raise RecipeError(f"this benchmark needs lightly: pip install lightly ({error})") from None


def build_simclr(encoder: nn.Module, width: int) -> tuple[nn.Module, Loss]:
    """Return SimCLR and its loss: Chen et al., 2020, arXiv:2002.05709."""
    head = import_lightly("models.modules.heads", "SimCLRProjectionHead")(width, 512, 128)
    criterion = import_lightly("loss", "NTXentLoss")(temperature=0.5)
    return nn.ModuleList([encoder, head]), lambda a, b, _: criterion(head(encoder(a)), head(encoder(b)))


def build_vicreg(encoder: nn.Module, width: int) -> tuple[nn.Module, Loss]:
    """Return VICReg and its loss: Bardes et al., 2022, arXiv:2105.04906."""
    head = import_lightly("models.modules.heads", "VICRegProjectionHead")(width, 2048, 2048, num_layers=2)
    criterion = import_lightly("loss", "VICRegLoss")()
    return nn.ModuleList([encoder, head]), lambda a, b, _: criterion(head(encoder(a)), head(encoder(b)))


def build_byol(encoder: nn.Module, width: int) -> tuple[nn.Module, Loss]:
    """Return BYOL and its loss: Grill et al., 2020, arXiv:2006.07733."""
    head = import_lightly("models.modules.heads", "BYOLProjectionHead")(width, 1024, 256)
    predict = import_lightly("models.modules.heads", "BYOLPredictionHead")(256, 1024, 256)
    online = nn.Sequential(encoder, head)
    target = copy.deepcopy(online).requires_grad_(False)
    criterion = import_lightly("loss", "NegativeCosineSimilarity")()
    update = import_lightly("models.utils", "update_momentum")

    def loss(a: Tensor, b: Tensor, share: float) -> Tensor:
        update(online, target, 1 - 0.01 * (1 + math.cos(math.pi * share)) / 2)  # 0.99 to 1
        with torch.no_grad():
            targets = target(a), target(b)
        return (criterion(predict(online(a)), targets[1]) + criterion(predict(online(b)), targets[0])) / 2

    return nn.ModuleList([online, predict, target]), loss


RIVALS = {"simclr": build_simclr, "byol": build_byol, "vicreg": build_vicreg}


class Rival:
    """A method of lightly on the recipe's encoder, for images [3, h, w]. Raise `RecipeError` without lightly."""

    def __init__(self, name: str, recipe: Recipe, images: ShardSource, column: str):
        table, size = next(iter(recipe.encoder.values())), images.specs[column].shape[-1]
        self.encoder: Any = timm.create_model(table.name, num_classes=0, **table.options)
        self.networks, self.loss = RIVALS[name](self.encoder, self.encoder.num_features)
        self.layout = memory_format_for(self.networks, CPU)
        self.networks.to(memory_format=self.layout)
        self.optimizer, self.bf16 = build_optimizer(self.networks, recipe.optim), recipe.train.precision == "bf16"
        simclr = import_lightly("transforms", "SimCLRTransform")
        self.transform = simclr(input_size=size, cj_strength=0.5, gaussian_blur=0.0)

    def draw(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """Return two views, each float32 [n, 3, h, w], of images uint8 [n, 3, h, w]."""
        drawn = [self.transform(Image.fromarray(picture)) for picture in pictures.permute(0, 2, 3, 1).numpy()]
        return tuple(torch.stack(side) for side in zip(*drawn, strict=True))

    def update(self, views: Iterable[Tensor], share: float = 0.0) -> None:
        """Take an optimizer step on two views, after a `share` of the time."""
        self.networks.train()
        a, b = (view.to(memory_format=self.layout) for view in views)
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            value = self.loss(a, b, share)
        value.backward()
        self.optimizer.step()


def build_rival(name: str, recipe: Recipe, images: ShardSource, column: str) -> Method:
    """Return a method of lightly for `mvssl bench rivals`. Raise `RecipeError` if lightly is not installed."""
    rival, numbers = Rival(name, recipe, images, column), itertools.count()
    batches = iter(loader(images, batch_size=recipe.data.batch_size, seed=recipe.train.seed, stop_step=FOREVER))
    mean, std = (torch.tensor(value)[:, None, None] for value in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))

    def step(share: float) -> None:
        views = rival.draw(next(batches).columns[column])
        number = next(numbers)
        steps = estimate_steps(number, share, recipe.optim.warmup)
        set_learning_rate(rival.optimizer, learning_rate(recipe.optim, number, steps))
        rival.update(views, share)

    def encode(batch: Batch) -> Tensor:
        rival.encoder.eval()
        return rival.encoder((batch.columns[column].float() / 255 - mean) / std)

    return Method(step, encode)


class _DrawnImages(Dataset):
    """Two views of each image, as lightly's users draw them in loader workers."""

    def __init__(self, images: ShardSource, column: str, transform: Callable[[Image.Image], list[Tensor]]):
        self.images, self.column, self.transform = images, column, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, ...]:
        return tuple(self.transform(Image.fromarray(self.images[i][self.column].transpose(1, 2, 0))))


def bench_lightly(
    recipe: Recipe, *, rounds: int = ROUNDS, block: float = 1.0, steps: int = 4, json_file: str | Path | None = None
) -> dict[str, Any]:
    """Compare the training loop, and its model alone, with lightly's SimCLR on the same encoder, images and precision.

    Two rows count CPU time on one thread without loader workers, the last one wall time with two. Views are ours and
    lightly's. Raise `RecipeError` without lightly, or if the recipe has no single view of images with `count: 2`.
    """
    check_json_file(json_file)
    view = next(iter(recipe.views.values()))
    if len(recipe.views) > 1 or view.count != 2 or view.name != "image":
        raise RecipeError("bench lightly needs one view of images with count: 2, as lightly's SimCLR has")
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(recipe, workers=0)
        rival = Rival("simclr", recipe, trainer.source, view.source)  # pyright: ignore[reportArgumentType]
        with one_thread():
            rows = _compare_on_one_thread(recipe, trainer, rival, Path(folder), rounds, block)
        rows.append(_compare_with_workers(recipe, rival, Path(folder), rounds, steps))
    slowest = min(rows, key=lambda row: row.ratio or 0.0)
    return finish_comparison("lightly", rows, bottleneck=f"least ahead: {slowest.what}", json_file=json_file)


def _compare_on_one_thread(
    recipe: Recipe, trainer: Trainer, rival: Rival, folder: Path, rounds: int, block: float
) -> list[Row]:
    batch, column = recipe.data.batch_size, trainer.views.source_of(trainer.views.names[0])
    loop, model = run_loop(trainer, folder, Stopwatch(CPU)), run_model(trainer)
    batches = iter(loader(trainer.source, batch_size=batch, seed=recipe.train.seed, stop_step=FOREVER))
    random = torch.randn(2, batch, *next(iter(trainer.views.shapes.values())))
    whole: dict[str, Way] = {OURS: lambda: next(loop)}
    whole[LIGHTLY] = lambda: rival.update(rival.draw(next(batches).columns[column]))
    bare: dict[str, Way] = {OURS: lambda: next(model), LIGHTLY: lambda: rival.update(random)}
    return [
        compare("loop, CPU time, 1 thread", whole, samples=batch, rounds=rounds, block=block),
        compare("bare model, CPU time, 1 thread", bare, samples=batch, rounds=rounds, block=block),
    ]


def _compare_with_workers(recipe: Recipe, rival: Rival, folder: Path, rounds: int, steps: int) -> Row:
    batch, trainer = recipe.data.batch_size, build_trainer(recipe, workers=WORKERS)
    loop, column = run_loop(trainer, folder, Stopwatch(CPU)), trainer.views.source_of(trainer.views.names[0])
    images = _DrawnImages(trainer.source, column, rival.transform)  # pyright: ignore[reportArgumentType]
    drawn = DataLoader(images, batch, shuffle=True, num_workers=WORKERS, drop_last=True, persistent_workers=True)
    endless = (pair for _ in itertools.count() for pair in drawn)
    theirs = (rival.update(pair) for pair in endless)
    spent = {OURS: [], LIGHTLY: []}
    for _ in range(rounds):
        for name, way in ((OURS, loop), (LIGHTLY, theirs)):
            spent[name].append(time_block(way, 2 * WORKERS + 1, steps, trainer))
    return build_row(f"loop, wall time, {WORKERS} workers, {torch.get_num_threads()} threads", spent, samples=batch)
