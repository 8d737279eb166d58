"""A timm model that gives maps and a vector in one pass.

in   [n, c, h, w] (or [n, d], [n, c, t] where the model flattens)
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

_HEAD, _MAPS = "an encoder has no head", "taps says which maps are taken"
_WEIGHTS, _BUILD = "pretrained and init_from say which weights it starts from", "it changes how timm builds every model"
DECIDED = {  # keywords of timm.create_model that the recipe decides in another place, or that nobody may change
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
        training = self.training
        self.eval()
        try:
            some = next(self.model.parameters())
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                features = self(torch.zeros(1, *shape, dtype=some.dtype, device=some.device))
        except MvsslError:
            raise
        except Exception as error:  # whatever the recipe's options make timm raise
            raise self.refusal(shape, first_line(error)) from None
        finally:
            self.train(training)
        maps = [tuple(m.shape[1:]) for m in features.maps if m.ndim == 4]
        if features.vector.ndim != 2 or not features.vector.shape[1]:
            found = f"it gives {list(features.vector.shape[1:])} per sample in place of a vector"
            raise self.refusal(
                shape, found + "; leave global_pool out, or set it to avg" * ("global_pool" in self.arguments)
            )
        if len(maps) < len(features.maps):
            raise self.refusal(shape, "its maps are not [n, c, h, w]; taps: [] goes without maps")
        return Widths(tuple((c, h, w) for c, h, w in maps), features.vector.shape[1])

    def refusal(self, shape: tuple[int, ...], why: str) -> RecipeError:
        """What to raise where the encoder cannot be used on views of `shape`."""
        taps = "all" if self.taps is None else self.taps
        return RecipeError(
            f"{self.where}: {self.name} does not take views of shape {tuple(shape)} with taps {taps} and options "
            f"{_listed(self.arguments)}: {why}"
        )


def _listed(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in arguments.items())


def _arguments(table: recipe.Encoder, shape: tuple[int, ...], where: str) -> dict[str, Any]:
    """Keywords for timm.create_model: the recipe's options, the channels, the size where a model is built for one."""
    architecture = table.name.partition(".")[0]
    if not timm.is_model(architecture):
        raise RecipeError(f"{where}: timm has no model {table.name!r}{_similar(architecture)}")
    channels, height, width = as_image(shape)
    options = dict(table.options)
    for key in options:
        if key in DECIDED:
            raise RecipeError(f"{where}.options: {key} is not for recipes; leave it out: {DECIDED[key]}")
    if options.setdefault("in_chans", channels) != channels:
        raise RecipeError(
            f"{where}.options.in_chans is {options['in_chans']!r}, but its views have {channels} channels"
        )
    known = timm.models.get_pretrained_cfg(architecture, allow_unregistered=True)
    if known is not None and known.fixed_input_size:
        options.setdefault("img_size", (height, width))
    return options


def _similar(name: str) -> str:
    return nearest(name, timm.list_models()).partition(" (accepted")[0] + "; timm.list_models() lists them all"


def _create(name: str, arguments: dict[str, Any], pretrained: bool, where: str) -> nn.Module:
    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=0, **arguments)
    except Exception as error:  # timm checks few of its options: wrong ones raise anything
        raise RecipeError(f"{where}: timm cannot build {name} with {_listed(arguments)}: {first_line(error)}") from None
    for method, keyword in (("forward_intermediates", "output_fmt"), ("forward_head", "pre_logits")):
        if not _takes(getattr(model, method, None), keyword):
            raise RecipeError(
                f"{where}: timm's {name} has no {method}({keyword}=...), so it gives no maps and vector in one pass; "
                "most ResNet, ConvNeXt, EfficientNet, ViT and Swin models can"
            )
    return model


def _takes(method: Any, keyword: str) -> bool:
    return method is not None and keyword in inspect.signature(method).parameters


def first_line(error: Exception) -> str:
    """What an exception of another library says, in one line."""
    text = next(iter(str(error).splitlines()), type(error).__name__)
    return f"unknown value {text}" if isinstance(error, KeyError) else text
