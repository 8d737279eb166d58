"""Layers of a model by name: how their features are computed, and what decides their values.

in   a batch; `vector`, `head`, `head:LABEL`, the number of a map, `dense N` (map N, not flattened), `pixels`
out  [n, d] by view, or [n, c, h, w] of a dense layer
"""

import functools
import hashlib
import importlib
import inspect
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from mvssl.data.batch import Batch
from mvssl.distributed.devices import arithmetic
from mvssl.encoders.features import Features, at_least_float32
from mvssl.errors import RecipeError
from mvssl.evaluation.features.labelled import flatten
from mvssl.evaluation.results.records import PIXELS
from mvssl.files import hash_bytes
from mvssl.recipe.draw_names import first_draw_name
from mvssl.runs.versions import versions
from mvssl.text import split_names

if TYPE_CHECKING:
    from mvssl.data.shard_source import ShardSource
    from mvssl.model import MultiView
    from mvssl.objectives import Objective
    from mvssl.recipe import ViewConfig
    from mvssl.views import ViewSet

DENSE = "dense "
DENSE_NUMBERS = 32_768  # most numbers of local maps, for a sample and view: 128 kB

Encode = Callable[[Batch], dict[str, Tensor]]


class EncoderUnderTest(NamedTuple):
    """A model to measure. Its name in records is `pixels`, `untrained` or `trained`.

    `model` is None for raw pixels, whose features are the clean views. `digest` identifies the weights.
    """

    name: str
    model: "MultiView | None"
    digest: str = ""

    def layer(self, wanted: str) -> str:
        """Return the layer to read if `wanted` is requested. Raw pixels have only one layer."""
        return PIXELS if self.model is None else wanted


class FeatureSpec(NamedTuple):
    """A layer of an encoder, or without an encoder the labels."""

    encoder: EncoderUnderTest | None
    layer: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """The key of these features within an evaluation."""
        return (self.encoder.name if self.encoder else "", self.layer)


LABELS, CLEAN_VIEWS = FeatureSpec(None), FeatureSpec(EncoderUnderTest(PIXELS, None), PIXELS)


def compute_features(
    batch: Batch, specs: list[FeatureSpec], views: "ViewSet", device: torch.device, precision: str
) -> list[dict[str, Tensor]]:
    """Return the arrays of each spec by name: features by view, or `label` and `segments` of the batch.

    Each model runs once, and the views are computed once.
    """
    clean = views.clean(batch, device) if any(spec.encoder for spec in specs) else {}
    outputs: dict[str, dict[str, Features]] = {}
    for encoder in {spec.encoder.name: spec.encoder for spec in specs if spec.encoder}.values():
        if encoder.model is not None:
            with arithmetic(precision), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                features = encoder.model.encode(clean)
            outputs[encoder.name] = {
                view: x._replace(vector=at_least_float32(x.vector)) for view, x in features.items()
            }
    computed = []
    # all draws of a view are one clean view, but objectives use the names of the draws
    drawn = {view: first_draw_name(view, views.names) or view for view in clean}
    for encoder, layer in specs:
        if encoder is None:
            computed.append(_labels(batch))
        elif layer.startswith(DENSE):
            computed.append(_local_maps(encoder, clean, outputs.get(encoder.name, {}), layer.removeprefix(DENSE)))
        elif encoder.model is None:
            computed.append({view: flatten(x) for view, x in clean.items()})
        else:
            model, features = encoder.model, outputs[encoder.name].items()
            computed.append({view: select_layer(model, drawn[view], x, layer) for view, x in features})
    return computed


def _local_maps(
    encoder: EncoderUnderTest, clean: dict[str, Tensor], outputs: dict[str, Features], layer: str
) -> dict[str, Tensor]:
    """Return the maps [n, c, h, w] of the views that have this map."""
    if layer == PIXELS:
        return {view: x for view, x in clean.items() if x.ndim == 4}
    having = (view for view in outputs if layer in local_map_layers(encoder, layer, view))
    return {view: at_least_float32(outputs[view].maps[int(layer)]) for view in having}


def local_map_layers(encoder: EncoderUnderTest, layer: str, view: str | None = None) -> list[str]:
    """Return the numbers of the maps that a dense probe reads, shallow to deep, for one view or all views.

    If `layer` is the number of a map, it is this map. Otherwise these are the deepest maps with more than one place:
    together at most DENSE_NUMBERS numbers, but at least one map.
    """
    if encoder.model is None:
        return [PIXELS]
    model, kept = encoder.model, []
    for name in [view] if view else [name for group in model.encoders for name in split_names(group)]:
        network, total = model.encoder_of(name), 0
        maps = network.widths.maps if len(network.shape) == 3 else ()  # maps of signals are one pixel high
        for number in reversed(range(len(maps))):
            total += math.prod(maps[number])
            fits = layer == str(number) if layer.isdecimal() else total <= DENSE_NUMBERS or not kept
            if fits and math.prod(maps[number][1:]) > 1:
                kept.append(str(number))
    return sorted(dict.fromkeys(kept), key=int)


def build_encode(model: "MultiView", views: "ViewSet", layer: str, device: torch.device) -> Encode:
    """Return a function that computes the features [n, d] of a batch by view, for one model and layer."""
    spec = FeatureSpec(EncoderUnderTest("trained", model), layer)
    return lambda batch: compute_features(batch, [spec], views, device, "fp32")[0]


def _labels(batch: Batch) -> dict[str, Tensor]:
    """Return `index`, `labelled` (whether a sample has a label), and `label` and `segments` if the batch has them."""
    columns = {name: batch.columns[name] for name in ("label", "segments") if name in batch.columns}
    if "label" in batch.present:
        columns["labelled"] = batch.present["label"].to(torch.uint8)
    return {"index": batch.index, **columns}


def describe_features(
    spec: FeatureSpec, source: "ShardSource", tables: "Mapping[str, ViewConfig]", device: torch.device, precision: str
) -> dict[str, Any]:
    """Return as JSON everything that decides the values of the arrays. `tables` are the recipe's views by name."""
    data = {
        "fingerprint": source.fingerprint,
        "files": [[(stat := os.stat(path)).st_size, stat.st_mtime_ns] for path in source.paths],
        "optional": sorted(source.optional),  # samples that lack one of these are kept
        "columns": {name: column.model_dump(mode="json") for name, column in source.columns.items()},
        "samples": len(source),
    }
    if spec.encoder is None:
        return {"data": data, "of": "labels", "code": _package_digest()}
    return {
        "data": data,
        "views": {
            # without the keys that change no clean view
            name: [table.model_dump(mode="json", exclude={"count", "geometry"}), digest_source(table.name)]
            for name, table in tables.items()
        },
        "of": spec.encoder.digest or PIXELS,
        "layer": spec.layer,
        "precision": precision,
        "device": device.type,
        "code": _package_digest(),
        "versions": {name: value for name, value in versions().items() if name not in ("mvssl", "scikit-learn")},
    }


def digest_weights(model: "MultiView", objective: str = "") -> str:
    """Return a digest of a model: its networks, their arguments, its objective, every weight and buffer."""
    digest = hashlib.blake2b(digest_size=16)
    for group, encoder in model.encoders.items():
        digest.update(repr((group, encoder.name, encoder.taps, encoder.arguments)).encode())
    digest.update(objective.encode())
    for name, value in model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


CODE = (  # folders and files of mvssl whose code computes features or labels from a shard
    "data", "views", "encoders", "objectives", "model.py", "distributed", "evaluation/features",
    "recipe/draw_names.py",
)  # fmt: skip


@functools.cache
def _package_digest(root: Path = Path(__file__).parents[2]) -> str:
    """Return a digest of the files in CODE."""
    files = [file for name in CODE for file in sorted((root / name).rglob("*.py")) or [root / name]]
    return hash_bytes(b"".join(file.read_bytes() for file in files))


def digest_source(name: str) -> str:
    """Return a digest of the source of a view or objective outside mvssl, because it decides the features."""
    if ":" not in name:
        return ""
    try:
        module, _, _ = name.partition(":")
        return hashlib.blake2b(inspect.getsource(importlib.import_module(module)).encode()).hexdigest()
    except (OSError, TypeError, ImportError):
        return str(os.urandom(8))  # the source is not known, so the features are computed again


def head_layers(model: "MultiView") -> "dict[str, tuple[str, Objective]]":
    """Return the heads of the objectives, with label and objective: `head:LABEL`, and `head` for the first one."""
    heads = {f"head:{label}": (label, objective) for label, _, objective in model.terms if objective.has_head}
    return ({"head": next(iter(heads.values()))} if heads else {}) | heads


def select_layer(model: "MultiView", view: str, features: Features, layer: str) -> Tensor:
    """Return the features [n, d] of one view at `layer`. Raise `RecipeError` if the layer does not exist."""
    if layer == "vector":
        return features.vector
    heads = head_layers(model)
    if layer in heads:
        return heads[layer][1].represent(view, features)
    refuse_layer(model, view, layer, len(features.maps))
    return flatten(at_least_float32(features.maps[int(layer)]))


def refuse_layer(model: "MultiView", view: str, layer: str, maps: int) -> None:
    """Raise `RecipeError` that lists the layers, if a view with this number of maps lacks `layer`."""
    accepted = ["vector", *head_layers(model), *map(str, range(maps))]
    if layer not in accepted:
        raise RecipeError(f"evaluate.layer: view {view!r} has no layer {layer!r} (accepted: {', '.join(accepted)})")
