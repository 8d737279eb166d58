"""The channels of a column by number or by name: which a view keeps, and what they are called.

in   a column's number of channels, the names of its bands (`bands`) and those that are kept (`channels`)
out  their numbers, and their names where there are any

Band names travel with a run's recipe and an export, so that a backbone is not fed other bands than it has seen.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mvssl.errors import RecipeError
from mvssl.recipe.messages import nearest

Channels = str | list[int] | list[str]


def kept_channels(
    given: int, channels: Channels | None, bands: Sequence[str] | None
) -> tuple[list[int], tuple[str, ...]]:
    """Numbers of the channels that a view keeps, in its order, and their names. Raises `RecipeError`."""
    if bands is not None and (len(bands) != given or len(set(bands)) != given):
        raise RecipeError(
            f"bands: {len(bands)} names ({', '.join(bands)}) for a column of {given} channels; give each its own"
        )
    wanted = [channels] if isinstance(channels, str) else range(given) if channels is None else channels
    kept = [_number(channel, bands) if isinstance(channel, str) else channel for channel in wanted]
    if not kept or len(set(kept)) != len(kept) or not all(0 <= k < given for k in kept):
        raise RecipeError(f"channels: {channels}; give different numbers from 0 to {given - 1}, or names of bands")
    return kept, tuple(bands[k] for k in kept) if bands is not None else ()


def _number(name: str, bands: Sequence[str] | None) -> int:
    if bands is None:
        raise RecipeError(f"channels: {name!r} is a name, and the view does not say its column's bands: [NAME, ...]")
    if name not in bands:
        raise RecipeError(f"channels: no band {name!r}{nearest(name, bands)}")
    return list(bands).index(name)


def kept_names(options: Mapping[str, Any]) -> list[str]:
    """The names of the bands that a view with these options keeps; none where it names none."""
    bands, channels = options.get("bands"), options.get("channels")
    if not bands:
        return []
    kept = bands if channels is None else [channels] if isinstance(channels, str) else channels
    return [channel if isinstance(channel, str) else bands[channel] for channel in kept]
