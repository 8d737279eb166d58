"""Start weights for an encoder from an earlier result; not resumption, which is the run's own business.

in   a run folder, a checkpoint, an export folder, a safetensors file, or a file that `torch.save` wrote
out  the model with these weights; a `RecipeError` lists the keys that do not fit

Files of `torch.save` are pickles, which can run code when they are read: they are read as tensors only.
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

from mvssl.errors import DataError, MvsslError, RecipeError
from mvssl.files import home_path
from mvssl.recipe import load_recipe
from mvssl.recipe.naming import split_group
from mvssl.text import counted, warn
from mvssl.views.channels import kept_band_names

_PREFIX = "encoders."
_INSIDE = ("state_dict", "model_state_dict", "model", "teacher")  # where training scripts keep the weights in a file
# what wrappers and training scripts put before the names of a backbone
_WRAPPERS = ("module.", "_orig_mod.", "backbone.", "encoder_q.", "encoder.", "model.")


def load_start_weights(
    model: nn.Module, source: str, group: str, where: str, bands: Mapping[str, list[str]] | None = None
) -> None:
    """Put the weights of `source` into a timm model; `group` is the encoder's name where a run has several.

    `bands` are the names of the channels of each view that the model will see. Raises `RecipeError` where the weights
    do not fit, or saw other bands, and `DataError` where they cannot be read or are NaN or infinite.
    """
    where = f"{where}.init_from: {source}"
    path = home_path(source)
    _check_bands(bands or {}, _bands_of(path, group), where)
    own = model.state_dict()
    weights = _unwrapped(_of_group(_read(path, where), group, where), own, where)
    # timm's files hold a classifier, which an encoder does not have
    heads = tuple(f"{head}." for head in _listed(getattr(model, "default_cfg", {}).get("classifier")))
    weights = {key: value for key, value in weights.items() if key in own or not key.startswith(heads or ("\0",))}
    _refuse_other(weights, own, where)
    for key, value in weights.items():
        if not value.isfinite().all():
            raise DataError(f"{where}: the tensor {key} is NaN or infinite; take weights from before that happened")
    model.load_state_dict(weights)


def _refuse_other(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], where: str) -> None:
    """Raise `RecipeError` that lists which tensors are missing, unknown, or of another shape or type."""
    faults = []
    if not weights.keys() & own.keys():
        faults = [f"  none of its {counted(len(weights), 'tensor')} is one of this encoder's: {_some(weights)}"]
    faults += [f"  missing {key}" for key in own if key not in weights]
    faults += [f"  unknown {key}" for key in weights if key not in own]
    both = [key for key in own if key in weights]
    faults += [
        f"  {key} is {list(weights[key].shape)}, the model has {list(own[key].shape)}"
        for key in both
        if own[key].shape != weights[key].shape
    ]
    faults += [
        f"  {key} holds {weights[key].dtype}, the model {own[key].dtype}"
        for key in both
        if own[key].is_floating_point() != weights[key].is_floating_point()
    ]
    if faults:
        shown = faults[:10] + ([f"  and {len(faults) - 10} more"] if len(faults) > 10 else [])
        raise RecipeError(f"{where} does not fit this encoder:\n" + "\n".join(shown))


def _some(weights: Mapping[str, Any]) -> str:
    return ", ".join([*list(weights)[:3], "..."])


def _unwrapped(weights: dict[str, Tensor], own: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The weights without what training scripts put before their names ("module.encoder_q."); says so, once."""
    taken, found = "", weights
    while not found.keys() & own.keys():
        prefix = next((p for p in _WRAPPERS if any(key.startswith(p) for key in found)), None)
        if prefix is None:
            return weights
        found = {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}
        taken += prefix
    if taken:
        others = len(weights) - len(found)
        rest = f"; {counted(others, 'tensor')} without this prefix left out" if others else ""
        warn(f"{where}: {counted(len(found), 'tensor')} taken without the prefix {taken!r}{rest}")
    return found


def _read(source: Path, where: str) -> dict[str, Tensor]:
    try:
        if source.is_file():
            with source.open("rb") as opened:
                pickled = opened.read(2).startswith(
                    (b"PK", b"\x80")
                )  # as torch.save writes; safetensors never begin so
            return _read_torch(source, where) if pickled else load_file(source)
        if (source / "model.safetensors").is_file():
            return load_file(source / "model.safetensors")
        if (source / "checkpoints").is_dir():
            from mvssl.checkpoints import store  # not above: a checkpoint knows models, models need no checkpoint

            found = store.newest(source)
            if found is not None:
                return store.load_model(found)
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{where} cannot be read as safetensors: {error}; is it whole? Files of torch.save are accepted, too"
        ) from None
    inside = sorted(folder.parent.name for folder in source.glob("*/model.safetensors"))
    hint = f"; it holds {', '.join(inside)}: name one of these" if inside else ""
    raise RecipeError(
        f"{where} is neither a run with a checkpoint, nor an export, nor a file of safetensors or of torch.save{hint}"
    )


def _read_torch(source: Path, where: str) -> dict[str, Tensor]:
    """A state dict that `torch.save` wrote, alone or in a training script's checkpoint; no code in it runs."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings(action="ignore"):
            found = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(
            f"{where} cannot be read as tensors ({_reason(error)}); save the weights alone, with "
            "torch.save(model.state_dict(), FILE) or safetensors, and check that the file is whole"
        ) from None
    inside = []
    while isinstance(found, Mapping):
        weights = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
        key = next((key for key in _INSIDE if isinstance(found.get(key), Mapping)), None)
        if weights and key is None:
            if inside:
                warn(f"{where}: the weights under {'.'.join(inside)} are taken")
            return weights
        if key is None:
            break
        inside.append(key)
        found = found[key]
    held = f"a table of {_some(found)}" if isinstance(found, Mapping) else f"a {type(found).__name__}"
    raise RecipeError(f"{where} holds no table of tensors by name but {held}; accepted under {', '.join(_INSIDE)}")


def _reason(error: Exception) -> str:
    """The line of torch's long message that says what stands in the way."""
    lines = str(error).splitlines() or [type(error).__name__]
    return next((line.strip() for line in lines if "Unsupported" in line or "GLOBAL" in line), lines[0])[:200]


def _bands_of(source: Path, group: str) -> dict[str, list[str]]:
    """The names of the channels, by view, that the weights of an export or a run have seen, as far as it tells."""
    try:
        if (source / "config.json").is_file():
            return json.loads((source / "config.json").read_text())["mvssl"].get("bands", {})
        for run in (source, source.parent.parent):  # a run, or one of its checkpoints
            if not (run / "recipe.yaml").is_file():
                continue
            recipe = load_recipe(run / "recipe.yaml")
            groups = [group] if group in recipe.encoder else list(recipe.encoder)
            views = split_group(groups[0]) if len(groups) == 1 else []
            found = {view: kept_band_names(recipe.views[view].options) for view in views}
            return {view: names for view, names in found.items() if names}
    except (MvsslError, OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # another program's folder
    return {}


def _check_bands(ours: Mapping[str, list[str]], theirs: Mapping[str, list[str]], where: str) -> None:
    """Raise `RecipeError` where a view has bands that the weights never saw in this order; no names, no opinion."""
    for view, names in ours.items():
        if names and theirs and names not in theirs.values():
            known = "; ".join(dict.fromkeys(f"[{', '.join(seen)}]" for seen in theirs.values()))
            raise RecipeError(
                f"{where} has seen the bands {known}, and views.{view} has [{', '.join(names)}]: choose the same, in "
                f"the same order, with views.{view}.channels"
            )


def _of_group(weights: dict[str, Tensor], group: str, where: str) -> dict[str, Tensor]:
    """The weights of one encoder: all of them in an export, those under the group's name (or the only one) in a run."""
    groups = list(dict.fromkeys(key.split(".")[1] for key in weights if key.startswith(_PREFIX)))
    if not groups:
        return weights
    if group not in groups:
        if len(groups) > 1:
            raise RecipeError(
                f"{where} has the encoders {', '.join(map(repr, groups))} and none for {group!r}; "
                "export the run and name the folder of the encoder that you want"
            )
        group = groups[0]
    prefix = f"{_PREFIX}{group}.model."
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def _listed(names: str | list[str] | tuple[str, ...] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())
