"""A timm model that returns maps and a vector in one pass.

in   [n, c, h, w] (or [n, d], [n, c, t] for a model that flattens)
out  Features: maps, shallow to deep, each [n, c, h, w], and the vector [n, d] that the model without a head returns
"""

import inspect
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn

from mvssl import recipe
from mvssl.encoders.features import Features, Widths, as_image
from mvssl.encoders.weights import load_start_weights
from mvssl.errors import MvsslError, RecipeError
from mvssl.recipe.messages import nearest

_HEAD, _MAPS = "an encoder has no head", "taps chooses the maps"
_WEIGHTS, _BUILD = "pretrained and init_from choose the start weights", "it changes how timm builds every model"
REFUSED_OPTIONS = {  # keywords of timm.create_model that other keys of a recipe set, or that no recipe may change
    "num_classes": _HEAD,
    "features_only": _MAPS,
    "out_indices": _MAPS,
    "feature_cls": _MAPS,
    **dict.fromkeys(
        ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "checkpoint_path", "cache_dir"),
        _WEIGHTS,
    ),
    **dict.fromkeys(("scriptable", "exportable", "no_jit"), _BUILD),
}


class Encoder(nn.Module):
    """The timm model of an `encoder` table in a recipe, for views of `shape` (c, h, w), (c, t) or (d,).

    `widths` are the sizes of its features. `timm.create_model` with `arguments` rebuilds `model`. `group` is the
    encoder's name in the recipe. `init_from` uses this name to find the weights in a run. `bands` are the channel names
    of each view. Start weights must come from training with these names.

    Raises `RecipeError` if timm does not know the model. The same error is raised if the model does not take this
    shape, or does not return maps and a vector in one pass.
    """

    def __init__(
        self,
        table: recipe.EncoderConfig,
        shape: tuple[int, ...],
        group: str = "",
        *,
        start_weights: bool = True,
        bands: Mapping[str, list[str]] | None = None,
    ):
        super().__init__()
        self.name, self.taps, self.shape = table.name, table.taps, tuple(shape)
        self.where = f"encoder.{group or table.name}"
        self.image = as_image(self.shape)
        self.arguments = _arguments(table, self.shape, self.where)
        self.model: Any = _create(table.name, self.arguments, table.pretrained and start_weights, self.where)
        if start_weights and table.init_from is not None:
            load_start_weights(self.model, table.init_from, group, self.where, bands)
        self.widths = self.measure(self.shape)

    def forward(self, x: Tensor) -> Features:
        """Return the maps that `taps` chooses, and the vector, in one pass."""
        if self.taps == []:
            return Features((), self.model(x))
        final, maps = self.model.forward_intermediates(x, indices=self.taps, output_fmt="NCHW")
        return Features(tuple(maps), self.model.forward_head(final, pre_logits=True))

    def measure(self, shape: tuple[int, ...]) -> Widths:
        """Return the sizes for views of `shape`, by a pass in eval mode; buffers and generators stay as they are.

        Raises `RecipeError` if the model does not take such views.
        """
        training = self.training
        self.eval()
        try:
            weight = next(self.model.parameters())
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                features = self(torch.zeros(1, *shape, dtype=weight.dtype, device=weight.device))
        except MvsslError:
            raise
        except Exception as error:  # timm may raise anything for options of the recipe
            raise self.refusal(shape, first_line(error)) from None
        finally:
            self.train(training)
        maps = [tuple(m.shape[1:]) for m in features.maps if m.ndim == 4]
        if features.vector.ndim != 2 or not features.vector.shape[1]:
            advice = "; leave global_pool out, or set it to avg" * ("global_pool" in self.arguments)
            size = list(features.vector.shape[1:])
            raise self.refusal(shape, f"it returns {size} for each sample instead of a vector{advice}")
        if len(maps) < len(features.maps):
            raise self.refusal(shape, "its maps are not [n, c, h, w]; use it without maps, with taps: []")
        return Widths(tuple((c, h, w) for c, h, w in maps), features.vector.shape[1])

    def refusal(self, shape: tuple[int, ...], why: str) -> RecipeError:
        """Return the error for views of `shape` that the encoder does not take."""
        taps = "all" if self.taps is None else self.taps
        return RecipeError(
            f"{self.where}: {self.name} does not take views of shape {tuple(shape)} with taps {taps} and options "
            f"{_listed(self.arguments)}: {why}"
        )


def _listed(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in arguments.items())


def _arguments(table: recipe.EncoderConfig, shape: tuple[int, ...], where: str) -> dict[str, Any]:
    """Keywords for timm.create_model: the recipe's options, the channels, and the size for models of a fixed size."""
    architecture = table.name.partition(".")[0]
    if not timm.is_model(architecture):
        near = nearest(architecture, timm.list_models()).partition(" (accepted")[0]
        raise RecipeError(f"{where}: timm has no model {table.name!r}{near}; timm.list_models() lists them all")
    channels, height, width = as_image(shape)
    options = dict(table.options)
    for key in options:
        if key in REFUSED_OPTIONS:
            raise RecipeError(f"{where}.options: {key} is not an option; leave it out: {REFUSED_OPTIONS[key]}")
    if options.setdefault("in_chans", channels) != channels:
        raise RecipeError(
            f"{where}.options.in_chans is {options['in_chans']!r}, but its views have {channels} channels"
        )
    known = timm.models.get_pretrained_cfg(architecture, allow_unregistered=True)
    if known is not None and known.fixed_input_size:
        options.setdefault("img_size", (height, width))
    return options


def _create(name: str, arguments: dict[str, Any], pretrained: bool, where: str) -> nn.Module:
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0, **arguments)
    except Exception as error:  # timm checks few of its options: wrong ones raise any exception
        raise RecipeError(f"{where}: timm cannot build {name} with {_listed(arguments)}: {first_line(error)}") from None
    for method, keyword in (("forward_intermediates", "output_fmt"), ("forward_head", "pre_logits")):
        taken = inspect.signature(getattr(model, method, lambda: None)).parameters
        if keyword not in taken:
            raise RecipeError(
                f"{where}: timm's {name} has no {method}({keyword}=...), so it cannot return maps and vector "
                "in one pass; most ResNet, ConvNeXt, EfficientNet, ViT and Swin models can"
            )
    return model


def first_line(error: Exception) -> str:
    """Return the first line of an exception's message."""
    text = next(iter(str(error).splitlines()), type(error).__name__)
    return f"unknown value {text}" if isinstance(error, KeyError) else text
