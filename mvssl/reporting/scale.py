"""Numbers for axes: round ticks, ranges that a few wild values do not stretch, series thinned to what is seen.

in   numbers, or points of a line
out  an `Axis` that lays them on paper
"""

import math
from collections.abc import Callable, Iterable
from statistics import fmean
from typing import NamedTuple

Points = list[tuple[float, float]]
ROUNDING = 1e-6  # share of a value by which equal values may differ
MOST = 240  # points of a line: more than a small chart has pixels to tell apart


class Axis(NamedTuple):
    """An interval on paper: `place(value)` in user units, ticks with their texts."""

    place: Callable[[float], float]
    ticks: list[tuple[float, str]]
    low: float
    high: float


def thin(points: Points, most: int = MOST) -> Points:
    """At most `most` points, each the mean of its neighbours in order."""
    size = math.ceil(len(points) / most) if points else 1
    groups = (points[i : i + size] for i in range(0, len(points), size))
    return points if size == 1 else [(fmean(x for x, _ in g), fmean(y for _, y in g)) for g in groups]


def bounds(values: Iterable[float]) -> tuple[float, float]:
    """An interval around `values` without what lies farther out than the middle nine tenths are wide."""
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
    wide = high - low if high - low > ROUNDING * max(abs(low), abs(high)) else math.inf
    return max(ordered[0], low - wide), min(ordered[-1], high + wide)


def linear(low: float, high: float, start: float, stop: float, count: int = 5) -> Axis:
    """Values from `low` to `high`, widened to a little more, laid from `start` to `stop`."""
    if not high - low > ROUNDING * max(abs(low), abs(high), 1e-12):
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    step = _round_step((high - low) / count)
    first = math.ceil(low / step - 1e-9)
    values = [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]
    return Axis(
        lambda v: start + (v - low) / (high - low) * (stop - start), [(v, number(v, step)) for v in values], low, high
    )


def logarithmic(low: float, high: float, start: float, stop: float) -> Axis:
    """Powers of ten from `low` > 0 to `high`; a linear axis where they span less than one."""
    a, b = math.floor(math.log10(low)), math.ceil(math.log10(high))
    inner = linear(math.log10(low), math.log10(high), start, stop)
    powers = [k for k in range(a, b + 1) if inner.low - 0.02 <= k <= inner.high + 0.02]
    if len(powers) < 2:
        return linear(low, high, start, stop)
    every = math.ceil(len(powers) / 5)
    return Axis(lambda v: inner.place(math.log10(v)), [(10.0**k, f"{10.0**k:g}") for k in powers[::every]], low, high)


def _round_step(rough: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is at least `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * k for k in (1, 2, 5, 10) if power * k >= rough * (1 - 1e-9))


def number(value: float, step: float) -> str:
    """A tick's text: thousands as k, millions as M, no more digits than ticks `step` apart need."""
    if value == 0 or abs(value) < step / 1e6:
        return "0"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size and step >= size / 100:
            return f"{value / size:.{_digits(step / size)}f}{letter}"
    if step < 1e-4:
        digits = math.floor(math.log10(abs(value)) + 1e-9) - math.floor(math.log10(step) + 1e-9)
        return f"{value:.{max(digits, 0)}e}".replace("e-0", "e-")
    return f"{value:.{_digits(step)}f}"


def _digits(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-9))


def short(value: float) -> str:
    """A number in running text: three digits or so."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
