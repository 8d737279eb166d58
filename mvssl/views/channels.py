"""The channels of a column: which of them a view keeps, by number or by name.

in   the number of channels of a column, their names (`bands`), and those to keep (`channels`)
out  the numbers of the kept channels, and their names if they have some

The names are stored with a run's recipe and with an export, so that a backbone does not get other bands later on.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mvssl.distributed.devices import send_constant
from mvssl.errors import RecipeError
from mvssl.recipe.messages import nearest

Channels = str | list[int] | list[str]


def kept_channels(
    count: int, channels: Channels | None, bands: Sequence[str] | None
) -> tuple[list[int], tuple[str, ...]]:
    """Return the numbers of the channels that a view keeps, in its order, and their names. Raises `RecipeError`."""
    if bands is not None and (len(bands) != count or len(set(bands)) != count):
        raise RecipeError(
            f"bands: {len(bands)} names ({', '.join(bands)}) for a column of {count} channels; "
            "give one name for each channel, all different"
        )
    wanted = [channels] if isinstance(channels, str) else range(count) if channels is None else channels
    kept = [_find_band(channel, bands) if isinstance(channel, str) else channel for channel in wanted]
    if not kept or len(set(kept)) != len(kept) or not all(0 <= k < count for k in kept):
        raise RecipeError(f"channels: {channels}; give different numbers from 0 to {count - 1}, or names of bands")
    return kept, tuple(bands[k] for k in kept) if bands is not None else ()


def _find_band(name: str, bands: Sequence[str] | None) -> int:
    if bands is None:
        raise RecipeError(f"channels: {name!r} is a name, but the view does not name its bands: [NAME, ...]")
    if name not in bands:
        raise RecipeError(f"channels: no band {name!r}{nearest(name, bands)}")
    return list(bands).index(name)


def kept_band_names(options: Mapping[str, Any]) -> list[str]:
    """Return the names of the bands that a view with these options keeps; empty if it names none."""
    bands, channels = options.get("bands"), options.get("channels")
    if not bands:
        return []
    kept = bands if channels is None else [channels] if isinstance(channels, str) else channels
    return [channel if isinstance(channel, str) else bands[channel] for channel in kept]


@functools.lru_cache(maxsize=256)
def _index(kept: tuple[int, ...], device: torch.device) -> Tensor:
    return send_constant(torch.tensor(kept), device)


def select_channels(x: Tensor, kept: list[int]) -> Tensor:
    """Return the channels `kept` of x [n, c, ...], in that order."""
    return x if kept == list(range(x.shape[1])) else x.index_select(1, _index(tuple(kept), x.device))
