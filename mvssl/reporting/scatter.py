"""A map of points by group as inline SVG, the groups named where they lie and in a legend.

in   groups of points in the unit square
out  a `figure`; a path of dots per group, so that a thousand points take ten kilobytes
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from mvssl.reporting.chart import svg
from mvssl.reporting.html import Html, el
from mvssl.reporting.scale import Points
from mvssl.text import counted

SIDE = 360  # user units
COLOURS = 10  # that the style sheet has


@dataclass(frozen=True)
class Group:
    """Points of one kind; without a colour they are gray and have no name."""

    name: str
    points: Points
    colour: int | None


def scatter(title: str, groups: Sequence[Group], note: str, *, named: bool = True) -> Html:
    """Points in the unit square by group; with `named` each group's name stands where its middle is."""
    dots = [_dots(g, _in_frame(g)) for g in groups]
    told = [g for g in groups if g.name and g.colour is not None]
    middles = [[sorted(side)[len(g.points) // 2] for side in zip(*_in_frame(g), strict=True)] for g in told]
    spaced = apart(middles, [_half(g.name) for g in told])
    names = [
        el("text", g.name, x=f"{px:.0f}", y=f"{py + 4:.0f}", class_=f"name {_of(g)}")
        for g, (px, py) in zip(told, spaced, strict=True)
    ]
    legend = [
        el("li", el("svg", _dots(g, [(5, 5)]), viewBox="0 0 10 10", aria_hidden="true", class_="key dot"), g.name)
        for g in told
    ]
    by = f", by {', '.join(g.name for g in told)}" if told else ""
    alt = f"{title}: {counted(sum(len(g.points) for g in groups), 'sample')} as points{by}"
    frame = el("rect", width=SIDE, height=SIDE, class_="frame")
    return el(
        "figure",
        el("figcaption", el("b", title)),
        svg(alt, frame, dots, names if named else None, wide=SIDE, high=SIDE),
        el("ul", legend, class_="legend") if legend else None,
        el("p", note, class_="note"),
        class_="chart",
    )


def _dots(group: Group, places: Points) -> Html:
    return el("path", d="".join(f"M{px:.0f} {py:.0f}h0" for px, py in places), class_=f"dots {_of(group)}")


def _in_frame(group: Group) -> Points:
    return [(10 + px * (SIDE - 20), 10 + (1 - py) * (SIDE - 20)) for px, py in group.points]


def _of(group: Group) -> str:
    return "rest" if group.colour is None else f"k{group.colour}"


def _half(name: str) -> float:
    return 3.7 * len(name) + 2  # about half the width of a name in bold


def apart(places: Sequence[Sequence[float]], halves: Sequence[float], high: float = 15) -> list[tuple[float, float]]:
    """Names moved up and down until none of `halves` half widths covers another, inside the frame."""
    found = [
        [min(max(px, half), SIDE - half), min(max(py, high), SIDE - high)]
        for (px, py), half in zip(places, halves, strict=True)
    ]
    for _ in range(200):
        still = True
        for i, j in itertools.combinations(range(len(found)), 2):
            upper, lower = (i, j) if found[i][1] <= found[j][1] else (j, i)
            over = high - (found[lower][1] - found[upper][1])
            if over > 0.1 and abs(found[i][0] - found[j][0]) < halves[i] + halves[j]:
                found[upper][1] = max(found[upper][1] - over / 2, high)
                found[lower][1] = min(found[lower][1] + over / 2, SIDE - high)
                still = False
        if still:
            break
    return [(px, py) for px, py in found]
