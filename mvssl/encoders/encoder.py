"""A timm model that gives maps and a vector in one pass.

in   [n, c, h, w] (or [n, d], [n, c, t] where the model flattens)
out  Features: maps, shallow to deep, each [n, c, h, w], and the vector [n, d] that the model without a head returns
"""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from mvssl import recipe
from mvssl.encoders.weights import load_start_weights
from mvssl.errors import RecipeError
from mvssl.recipe import nearest


class Features(NamedTuple):
    """What an encoder says about a batch; an encoder of flat vectors has no maps."""

    maps: tuple[Tensor, ...]  # shallow to deep, each [n, c, h, w]
    vector: Tensor  # [n, d]


class Widths(NamedTuple):
    """The sizes of `Features` without the batch."""

    maps: tuple[tuple[int, int, int], ...]  # (c, h, w) of each map
    vector: int
    base: str | None = None  # the recipe's name of the view; None where nobody said, and the drawn name has to tell


class Encoder(nn.Module):
    """The timm model that a recipe's table names, for views of `shape` (c, h, w), (c, t) or (d,).

    `widths` are the sizes of what it returns, `arguments` what rebuilds `model` with `timm.create_model`. `group` is
    the encoder's name in the recipe, by which `init_from` finds its weights in a run; `bands` are the names of the
    channels of each of its views, which start weights must have seen as well. Raises `RecipeError` for a model that
    timm does not know, that cannot give maps and a vector in one pass, or that does not take such a shape.
    """

    def __init__(
        self,
        table: recipe.Encoder,
        shape: tuple[int, ...],
        group: str = "",
        *,
        start_weights: bool = True,
        bands: Mapping[str, list[str]] | None = None,
    ):
        super().__init__()
        self.name, self.taps, self.shape, self.where = (
            table.name,
            table.taps,
            tuple(shape),
            f"encoder.{group or table.name}",
        )
        self.image = as_image(self.shape)
        self.arguments = _arguments(table, self.shape, self.where)
        self.model: Any = _create(table.name, self.arguments, table.pretrained and start_weights, self.where)
        if start_weights and table.init_from is not None:
            load_start_weights(self.model, table.init_from, group, self.where, bands)
        self.widths = self.measure(self.shape)

    def forward(self, x: Tensor) -> Features:
        """One pass: the maps that `taps` picks, and the vector."""
        if self.taps == []:
            return Features((), self.model(x))
        final, maps = self.model.forward_intermediates(x, indices=self.taps, output_fmt="NCHW")
        return Features(tuple(maps), self.model.forward_head(final, pre_logits=True))

    def measure(self, shape: tuple[int, ...]) -> Widths:
        """Sizes for views of `shape`, by a pass in eval mode that leaves buffers and generators as they are."""
        some = next(self.model.parameters())
        training = self.training
        self.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                features = self(torch.zeros(1, *shape, dtype=some.dtype, device=some.device))
        except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
            raise RecipeError(
                f"{self.where}: {self.name} does not take views of shape {tuple(shape)} with taps "
                f"{'all' if self.taps is None else self.taps}: {_first_line(error)}"
            ) from None
        finally:
            self.train(training)
        return Widths(tuple(_chw(m) for m in features.maps), features.vector.shape[1])


def _chw(x: Tensor) -> tuple[int, int, int]:
    _, c, h, w = x.shape
    return c, h, w


def _arguments(table: recipe.Encoder, shape: tuple[int, ...], where: str) -> dict[str, Any]:
    """Keywords for timm.create_model: the recipe's options, the channels, the size where a model is built for one."""
    architecture = table.name.partition(".")[0]
    if not timm.is_model(architecture):
        raise RecipeError(f"{where}: timm has no model {table.name!r}{_similar(architecture)}")
    channels, height, width = as_image(shape)
    options = dict(table.options)
    for key in ("num_classes", "features_only", "pretrained", "checkpoint_path"):
        if key in options:
            raise RecipeError(
                f"{where}.options: {key} is not for recipes; an encoder has no head, see pretrained and init_from"
            )
    if options.setdefault("in_chans", channels) != channels:
        raise RecipeError(f"{where}.options.in_chans is {options['in_chans']}, but its views have {channels} channels")
    known = timm.models.get_pretrained_cfg(architecture, allow_unregistered=True)
    if known is not None and known.fixed_input_size:
        options.setdefault("img_size", (height, width))
    return options


def with_view(features: Features, view: Tensor) -> Features:
    """The same features with the view itself, [n, c, h, w], as the shallowest of the maps."""
    return Features((view.reshape(len(view), *as_image(tuple(view.shape[1:]))), *features.maps), features.vector)


def as_image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """A view's shape as (channels, height, width): a signal is one pixel high, a feature is a channel of one pixel."""
    channels, *sides = shape
    height, width = [1, 1, *sides][-2:]
    return channels, height, width


def _similar(name: str) -> str:
    return nearest(name, timm.list_models()).partition(" (accepted")[0] + "; timm.list_models() lists them all"


def _create(name: str, arguments: dict[str, Any], pretrained: bool, where: str) -> nn.Module:
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0, **arguments)
    except (RuntimeError, ValueError, TypeError, AssertionError, KeyError, OSError) as error:
        given = ", ".join(f"{key}={value}" for key, value in arguments.items())
        raise RecipeError(f"{where}: timm cannot build {name} with {given}: {_first_line(error)}") from None
    for method, keyword in (("forward_intermediates", "output_fmt"), ("forward_head", "pre_logits")):
        if not _takes(getattr(model, method, None), keyword):
            raise RecipeError(
                f"{where}: timm's {name} has no {method}({keyword}=...), so it gives no maps and vector in one pass; "
                "most ResNet, ConvNeXt, EfficientNet, ViT and Swin models can"
            )
    return model


def _takes(method: Any, keyword: str) -> bool:
    return method is not None and keyword in inspect.signature(method).parameters


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
