"""Which features are meant: layers of a model by name, what decides their values, and how a batch gives them.

in   a batch; `vector`, `head`, `head:LABEL`, the number of a map, `dense N` (that map with its places), `pixels`
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
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mvssl.data import Batch, Shards
from mvssl.distributed.devices import arithmetic
from mvssl.encoders import Features, at_least_float32
from mvssl.errors import RecipeError
from mvssl.evaluation.features.labelled import flatten
from mvssl.model import MultiView
from mvssl.objectives import Objective
from mvssl.recipe import View
from mvssl.recipe.naming import first_drawn, split_group
from mvssl.runs.versions import versions
from mvssl.views import ViewSet

PIXELS, DENSE = "pixels", "dense "
DENSE_NUMBERS = 32_768  # per sample and view: 128 kB

Encode = Callable[[Batch], dict[str, Tensor]]


class Candidate(NamedTuple):
    """One column of the table; `model` None means the clean views themselves. `digest` names its weights."""

    encoder: str
    model: MultiView | None
    digest: str = ""


class Want(NamedTuple):
    """A layer of a candidate; without a candidate, the labels."""

    candidate: Candidate | None
    layer: str = ""


def compute(
    batch: Batch, wants: list[Want], views: ViewSet, device: torch.device, precision: str
) -> list[dict[str, Tensor]]:
    """Arrays by name for each want: features by view, or `label` and `segments` as the batch has them.

    Each model runs once, on views that are made once.
    """
    clean = views.clean(batch, device) if any(want.candidate for want in wants) else {}
    seen: dict[str, Any] = {}
    for candidate in {want.candidate.encoder: want.candidate for want in wants if want.candidate}.values():
        if candidate.model is not None:
            with arithmetic(precision), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                features = candidate.model.encode(clean)
            seen[candidate.encoder] = {
                view: x._replace(vector=at_least_float32(x.vector)) for view, x in features.items()
            }
    found = []
    # a view that is drawn several times is one clean view, and its objective knows it by its draws
    drawn = {view: first_drawn(view, views.names) or view for view in clean}
    for candidate, layer in wants:
        if candidate is None:
            found.append(_labels(batch))
        elif layer.startswith(DENSE):
            found.append(_dense(candidate, clean, seen.get(candidate.encoder, {}), layer.removeprefix(DENSE)))
        elif candidate.model is None:
            found.append({view: flatten(x) for view, x in clean.items()})
        else:
            features = seen[candidate.encoder].items()
            found.append({view: at_layer(candidate.model, drawn[view], x, layer) for view, x in features})
    return found


def _dense(candidate: Candidate, clean: dict[str, Tensor], seen: dict[str, Any], layer: str) -> dict[str, Tensor]:
    """The maps [n, c, h, w] of the views that have them."""
    if layer == PIXELS:
        return {view: x for view, x in clean.items() if x.ndim == 4}
    there = [view for view in seen if layer in dense_numbers(candidate, layer, view)]
    return {view: at_least_float32(seen[view].maps[int(layer)]) for view in there}


def dense_numbers(candidate: Candidate, layer: str, view: str | None = None) -> list[str]:
    """Which maps a dense probe reads, shallow to deep: the one that `layer` names, else the deepest ones.

    Of every view, or of one. The deepest are those with more than one place and together at most DENSE_NUMBERS numbers.
    """
    if candidate.model is None:
        return [PIXELS]
    model, kept = candidate.model, []
    for name in [view] if view else [name for group in model.encoders for name in split_group(group)]:
        encoder, total = model.encoder_of(name), 0
        maps = encoder.widths.maps if len(encoder.shape) == 3 else ()  # those of signals are one pixel high
        for number in reversed(range(len(maps))):
            total += math.prod(maps[number])
            fits = layer == str(number) if layer.isdecimal() else total <= DENSE_NUMBERS or not kept
            if fits and math.prod(maps[number][1:]) > 1:
                kept.append(str(number))
    return sorted(dict.fromkeys(kept), key=int)


def encode_model(model: MultiView, views: ViewSet, layer: str, device: torch.device) -> Encode:
    """From a batch to the features [n, d] by view of one model at one layer."""
    want = Want(Candidate("trained", model), layer)
    return lambda batch: compute(batch, [want], views, device, "fp32")[0]


def _labels(batch: Batch) -> dict[str, Tensor]:
    """What the batch has of `label`, `labelled` (whether a sample has one) and `segments`, and at least its index."""
    found = {name: batch.columns[name] for name in ("label", "segments") if name in batch.columns}
    if "label" in batch.present:
        found["labelled"] = batch.present["label"].to(torch.uint8)
    return {"index": batch.index, **found}


def describe(want: Want, source: Shards, tables: Mapping[str, View], device: torch.device, precision: str) -> dict:
    """All that decides the values of a want's arrays, as JSON; `tables` are the recipe's views by name."""
    data = {
        "fingerprint": source.fingerprint,
        "files": [[(stat := os.stat(path)).st_size, stat.st_mtime_ns] for path in source.paths],
        "optional": sorted(source.optional),  # whether a sample that lacks one is among them
        "columns": {name: column.model_dump(mode="json") for name, column in source.columns.items()},
        "samples": len(source),
    }
    if want.candidate is None:
        return {"data": data, "of": "labels", "code": _sources()}
    return {
        "data": data,
        "views": {name: [_clean(table), code_of(table.name)] for name, table in tables.items()},
        "of": want.candidate.digest or PIXELS,
        "layer": want.layer,
        "precision": precision,
        "device": device.type,
        "code": _sources(),
        "versions": {name: value for name, value in versions().items() if name not in ("mvssl", "scikit-learn")},
    }


def weights_digest(model: MultiView, objective: str = "") -> str:
    """One name for a model: its networks by name and arguments, its objective in words, every weight and buffer."""
    whole = hashlib.blake2b(digest_size=16)
    for group, encoder in model.encoders.items():
        whole.update(repr((group, encoder.name, encoder.taps, encoder.arguments)).encode())
    whole.update(objective.encode())
    for name, value in model.state_dict().items():
        whole.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        whole.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return whole.hexdigest()


def _clean(table: View) -> dict[str, Any]:
    """What of a view may decide how it looks without augmentation."""
    return table.model_dump(mode="json", exclude={"count", "geometry"})


CODE = (  # folders and files of mvssl whose code lies between a shard and a feature or label
    "data", "views", "encoders", "objectives", "model.py", "distributed", "evaluation/features",
)  # fmt: skip


@functools.cache
def _sources(root: Path = Path(__file__).parents[2]) -> str:
    """One name for the code in CODE."""
    whole = hashlib.blake2b(digest_size=16)
    for name in CODE:
        for file in sorted((root / name).rglob("*.py")) if (root / name).is_dir() else [root / name]:
            whole.update(file.read_bytes())
    return whole.hexdigest()


def code_of(name: str) -> str:
    """What a view or objective outside mvssl is made of: its text decides what a feature is."""
    if ":" not in name:
        return ""
    try:
        module, _, _ = name.partition(":")
        return hashlib.blake2b(inspect.getsource(importlib.import_module(module)).encode()).hexdigest()
    except (OSError, TypeError, ImportError):
        return str(os.urandom(8))  # not to be known, so never found again


def heads(model: MultiView) -> dict[str, tuple[str, Objective]]:
    """Layers that objectives compare, with label and objective: `head:LABEL` of each, and `head`, the first of them."""
    found = [(label, objective) for label, _, objective in model.terms if objective.has_head]
    first = {"head": found[0]} if found else {}
    return first | {f"head:{label}": (label, objective) for label, objective in found}


def at_layer(model: MultiView, view: str, features: Features, layer: str) -> Tensor:
    """[n, d] of one view's `Features` at `layer`. Raises `RecipeError` that lists the layers there are."""
    if layer == "vector":
        return features.vector
    known = heads(model)
    if layer in known:
        return known[layer][1].represent(view, features)
    refuse_layer(model, view, layer, len(features.maps))
    return flatten(at_least_float32(features.maps[int(layer)]))


def refuse_layer(model: MultiView, view: str, layer: str, maps: int) -> None:
    """Raise `RecipeError` that lists the layers there are, where a view's features of so many maps lack `layer`."""
    accepted = ["vector", *heads(model), *map(str, range(maps))]
    if layer not in accepted:
        raise RecipeError(f"evaluate.layer: view {view!r} has no layer {layer!r} (accepted: {', '.join(accepted)})")
