"""Start weights for an encoder from an earlier result; not resumption, which is the run's own business.

in   a run folder, a checkpoint, an export folder, or a safetensors file
out  the model with these weights; a `RecipeError` lists the keys that do not fit
"""

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mvssl.errors import DataError, MvsslError, RecipeError
from mvssl.recipe import load_recipe
from mvssl.views.bands import kept_names

_PREFIX = "encoders."


def load_start_weights(
    model: nn.Module, source: str, group: str, where: str, bands: Mapping[str, list[str]] | None = None
) -> None:
    """Put the weights of `source` into a timm model; `group` is the encoder's name where a run has several.

    `bands` are the names of the channels of each view that the model will see. Raises `RecipeError` where the weights
    do not fit, or saw other bands.
    """
    _check_bands(bands or {}, _bands_of(Path(source).expanduser(), group), f"{where}.init_from: {source}")
    weights = _of_group(_read(Path(source).expanduser(), where), group, f"{where}.init_from: {source}")
    own = model.state_dict()
    # timm's files hold a classifier, which an encoder does not have
    heads = tuple(f"{head}." for head in _listed(getattr(model, "default_cfg", {}).get("classifier")))
    weights = {key: value for key, value in weights.items() if key in own or not key.startswith(heads or ("\0",))}
    faults = [f"  missing {key}" for key in own if key not in weights]
    faults += [f"  unknown {key}" for key in weights if key not in own]
    faults += [
        f"  {key} is {list(weights[key].shape)}, the model has {list(own[key].shape)}"
        for key in own
        if key in weights and own[key].shape != weights[key].shape
    ]
    if faults:
        shown = faults[:10] + ([f"  and {len(faults) - 10} more"] if len(faults) > 10 else [])
        raise RecipeError(f"{where}.init_from: {source} does not fit this encoder:\n" + "\n".join(shown))
    model.load_state_dict(weights)


def _read(source: Path, where: str) -> dict[str, Tensor]:
    try:
        if source.is_file():
            return load_file(source)
        if (source / "model.safetensors").is_file():
            return load_file(source / "model.safetensors")
        if (source / "checkpoints").is_dir():
            from mvssl import checkpoint  # not above: a checkpoint knows models, models need no checkpoint

            found = checkpoint.newest(source)
            if found is not None:
                return checkpoint.load_model(found)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{where}.init_from: {source} cannot be read as safetensors: {error}") from None
    inside = sorted(folder.parent.name for folder in source.glob("*/model.safetensors"))
    hint = f"; it holds {', '.join(inside)}: name one of these" if inside else ""
    raise RecipeError(
        f"{where}.init_from: {source} is neither a run with a checkpoint, nor an export, nor a safetensors file{hint}"
    )


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
            views = [view.strip() for view in groups[0].split(",")] if len(groups) == 1 else []
            found = {view: kept_names(recipe.views[view].options) for view in views}
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
