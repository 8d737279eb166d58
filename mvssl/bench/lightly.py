"""lightly's SimCLR, BYOL and VICReg, built as in its CIFAR-10 benchmark, for `mvssl bench rivals`.

in   a recipe's encoder, optimizer, precision, batch size and seed, and the images
out  a `Method`: lightly's transforms, heads and loss, trained with the settings of the recipe

Heads and transforms of https://docs.lightly.ai/self-supervised-learning/getting_started/benchmarks.html (CIFAR-10):
jitter 0.5, no blur. That benchmark has no VICReg. The projector of VICReg is 2048 wide here, not 8192 as in the
paper, because the encoder is narrow. The optimizer there, SGD at 0.06 for 128 images, is for hundreds of epochs; see
docs/results.md.
"""

import copy
import importlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import timm
import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from mvssl.bench.timing import FOREVER, Method, estimate_steps
from mvssl.data import Batch, ShardSource, loader
from mvssl.distributed.devices import memory_format_for
from mvssl.errors import RecipeError
from mvssl.optim import build_optimizer, learning_rate, set_learning_rate
from mvssl.recipe import Recipe

Loss = Callable[[Tensor, Tensor, float], Tensor]  # two views, and the share of the time that is used


def import_lightly(module: str, name: str) -> Any:
    """Return a class or function of lightly. Raise `RecipeError` if lightly is not installed."""
    try:
        return getattr(importlib.import_module(f"lightly.{module}"), name)
    except ImportError as error:
        raise RecipeError(f"bench rivals needs lightly: pip install lightly ({error})") from None


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


def build_rival(name: str, recipe: Recipe, images: ShardSource, column: str) -> Method:
    """Return a method of lightly on the recipe's encoder. Raise `RecipeError` if lightly is not installed."""
    table = next(iter(recipe.encoder.values()))
    encoder: Any = timm.create_model(table.name, num_classes=0, **table.options)
    networks, loss = RIVALS[name](encoder, encoder.num_features)
    layout = memory_format_for(networks, torch.device("cpu"))
    networks.to(memory_format=layout)
    optimizer, numbers = build_optimizer(networks, recipe.optim), itertools.count()
    size = images.specs[column].shape[-1]
    transform = import_lightly("transforms", "SimCLRTransform")(input_size=size, cj_strength=0.5, gaussian_blur=0.0)
    batches = iter(loader(images, batch_size=recipe.data.batch_size, seed=recipe.train.seed, stop_step=FOREVER))
    mean, std = (torch.tensor(value)[:, None, None] for value in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))

    def step(share: float) -> None:
        networks.train()
        pictures = next(batches).columns[column].permute(0, 2, 3, 1).numpy()
        drawn = [transform(Image.fromarray(picture)) for picture in pictures]
        a, b = (torch.stack(side).to(memory_format=layout) for side in zip(*drawn, strict=True))
        number = next(numbers)
        steps = estimate_steps(number, share, recipe.optim.warmup)
        set_learning_rate(optimizer, learning_rate(recipe.optim, number, steps))
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.train.precision == "bf16"):
            value = loss(a, b, share)
        value.backward()
        optimizer.step()

    def encode(batch: Batch) -> Tensor:
        encoder.eval()
        return encoder((batch.columns[column].float() / 255 - mean) / std)

    return Method(step, encode)
