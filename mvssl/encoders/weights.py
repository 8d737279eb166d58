"""Start weights for an encoder, from an earlier run or a file.

in   a run folder, a checkpoint, an export folder, a safetensors file, or a file that `torch.save` wrote
out  the model with these weights; a `RecipeError` lists the keys that do not fit

A file of `torch.save` is a pickle, which can run code when it is read. It is read as tensors only.
"""

import argparse
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mvssl.checkpoints.reading import load_model
from mvssl.checkpoints.store import newest
from mvssl.errors import DataError, MvsslError, RecipeError
from mvssl.files import home_path
from mvssl.recipe import load_recipe
from mvssl.text import counted, split_names, warn
from mvssl.views.channels import kept_band_names

_PREFIX = "encoders."
_NESTED = ("state_dict", "model_state_dict", "model", "teacher")  # keys under which training scripts store weights
# prefixes that wrappers and training scripts add to the names of a backbone
_WRAPPERS = ("module.", "_orig_mod.", "backbone.", "encoder_q.", "encoder.", "model.")


def load_start_weights(
    model: nn.Module, source: str, group: str, where: str, bands: Mapping[str, list[str]] | None = None
) -> None:
    """Load the weights of `source` into a timm model. `group` is the encoder's name where a run has several.

    `bands` are the channel names of each view of the model. Messages begin with `where`. Raises `RecipeError` for
    weights that do not fit or were trained on other bands, and `DataError` for weights that cannot be read or are NaN
    or infinite.
    """
    where = f"{where}.init_from: {source}"
    path = home_path(source)
    _check_bands(bands or {}, _read_bands(path, group), where)
    own = model.state_dict()
    weights = _remove_prefix(_select_group(_read(path, where), group, where), own, where)
    # timm's files hold a classifier, which an encoder does not have
    heads = getattr(model, "default_cfg", {}).get("classifier") or ()
    heads = tuple(f"{head}." for head in ([heads] if isinstance(heads, str) else heads))
    weights = {key: value for key, value in weights.items() if key in own or not key.startswith(heads)}
    _check_tensors(weights, own, where)
    for key, value in weights.items():
        if not value.isfinite().all():
            raise DataError(f"{where}: the tensor {key} is NaN or infinite; use weights from an earlier step")
    model.load_state_dict(weights)


def _check_tensors(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str) -> None:
    """Raise `RecipeError` that lists the tensors that are missing, unknown, or of another shape or type."""
    faults = []
    if not weights.keys() & own.keys():
        faults = [f"  none of its {counted(len(weights), 'tensor')} is in this encoder: {_first_keys(weights)}"]
    faults += [f"  missing {key}" for key in own if key not in weights]
    faults += [f"  unknown {key}" for key in weights if key not in own]
    shared = [(key, tensor, weights[key]) for key, tensor in own.items() if key in weights]
    for key, ours, theirs in shared:
        if ours.shape != theirs.shape:
            faults.append(f"  {key} is {list(theirs.shape)}, the model has {list(ours.shape)}")
    for key, ours, theirs in shared:
        if ours.is_floating_point() != theirs.is_floating_point():
            faults.append(f"  {key} has type {theirs.dtype}, the model {ours.dtype}")
    if faults:
        shown = faults[:10] + ([f"  and {len(faults) - 10} more"] if len(faults) > 10 else [])
        raise RecipeError(f"{where} does not fit this encoder:\n" + "\n".join(shown))


def _first_keys(weights: Mapping[str, Any]) -> str:
    return ", ".join([*list(weights)[:3], "..."])


def _remove_prefix(weights: dict[str, Tensor], own: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """Return the weights without a prefix of training scripts, such as "module.encoder_q."; a warning names it."""
    removed, kept = "", weights
    while not kept.keys() & own.keys():
        prefix = next((p for p in _WRAPPERS if any(key.startswith(p) for key in kept)), None)
        if prefix is None:
            return weights
        kept = {key.removeprefix(prefix): value for key, value in kept.items() if key.startswith(prefix)}
        removed += prefix
    if removed:
        others = len(weights) - len(kept)
        rest = f"; {counted(others, 'tensor')} without it ignored" if others else ""
        warn(f"{where}: the prefix {removed!r} is removed from the names of {counted(len(kept), 'tensor')}{rest}")
    return kept


def _read(source: Path, where: str) -> dict[str, Tensor]:
    try:
        if source.is_file():
            with source.open("rb") as opened:
                pickled = opened.read(2).startswith((b"PK", b"\x80"))  # zip or pickle; safetensors never begin so
            return _read_torch(source, where) if pickled else load_file(source)
        if (source / "model.safetensors").is_file():
            return load_file(source / "model.safetensors")
        if (source / "checkpoints").is_dir():
            checkpoint = newest(source)
            if checkpoint is not None:
                return load_model(checkpoint)
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{where} cannot be read as safetensors: {error}; is it complete? Files of torch.save are accepted, too"
        ) from None
    inside = sorted(folder.parent.name for folder in source.glob("*/model.safetensors"))
    hint = f"; it contains {', '.join(inside)}: name one of these" if inside else ""
    raise RecipeError(
        f"{where} is neither a run with a checkpoint, nor an export, nor a file of safetensors or torch.save{hint}"
    )


def _read_torch(source: Path, where: str) -> dict[str, Tensor]:
    """Return a state dict that `torch.save` wrote, alone or in a checkpoint of a script. No code in it runs."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings(action="ignore"):
            content = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(
            f"{where} cannot be read as tensors ({_reason(error)}); save the weights alone, with "
            "torch.save(model.state_dict(), FILE) or safetensors, and check that the file is complete"
        ) from None
    inside = []
    while isinstance(content, Mapping):
        weights = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        key = next((key for key in _NESTED if isinstance(content.get(key), Mapping)), None)
        if weights and key is None:
            if inside:
                warn(f"{where}: the weights under {'.'.join(inside)} are used")
            return weights
        if key is None:
            break
        inside.append(key)
        content = content[key]
    held = f"a table of {_first_keys(content)}" if isinstance(content, Mapping) else f"a {type(content).__name__}"
    raise RecipeError(
        f"{where} contains {held} instead of tensors by name; these may be under one of {', '.join(_NESTED)}"
    )


def _reason(error: Exception) -> str:
    """Return the line of torch's long message that names the cause."""
    lines = str(error).splitlines() or [type(error).__name__]
    return next((line.strip() for line in lines if "Unsupported" in line or "GLOBAL" in line), lines[0])[:200]


def _read_bands(source: Path, group: str) -> dict[str, list[str]]:
    """Return the channel names, by view, that an export or a run was trained on; empty if they are not recorded."""
    try:
        if (source / "config.json").is_file():
            return json.loads((source / "config.json").read_text())["mvssl"].get("bands", {})
        for run in (source, source.parent.parent):  # a run, or one of its checkpoints
            if not (run / "recipe.yaml").is_file():
                continue
            recipe = load_recipe(run / "recipe.yaml")
            groups = [group] if group in recipe.encoder else list(recipe.encoder)
            views = split_names(groups[0]) if len(groups) == 1 else []
            bands = {view: kept_band_names(recipe.views[view].options) for view in views}
            return {view: names for view, names in bands.items() if names}
    except (MvsslError, OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # a folder of another program
    return {}


def _check_bands(ours: Mapping[str, list[str]], theirs: Mapping[str, list[str]], where: str) -> None:
    """Raise `RecipeError` for a view with other bands than the weights, or in another order.

    Nothing is checked if either side has no names.
    """
    for view, names in ours.items():
        if names and theirs and names not in theirs.values():
            known = "; ".join(dict.fromkeys(f"[{', '.join(bands)}]" for bands in theirs.values()))
            raise RecipeError(
                f"{where} was trained on the bands {known}, but views.{view} has [{', '.join(names)}]: choose the "
                f"same, in the same order, with views.{view}.channels"
            )


def _select_group(weights: dict[str, Tensor], group: str, where: str) -> dict[str, Tensor]:
    """Return the weights of one encoder: all of an export, or those of the group (or of the only one) in a run."""
    groups = list(dict.fromkeys(key.split(".")[1] for key in weights if key.startswith(_PREFIX)))
    if not groups:
        return weights
    if group not in groups:
        if len(groups) > 1:
            raise RecipeError(
                f"{where} has the encoders {', '.join(map(repr, groups))} and none for {group!r}; "
                "export the run and name the folder of one encoder"
            )
        group = groups[0]
    prefix = f"{_PREFIX}{group}.model."
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
