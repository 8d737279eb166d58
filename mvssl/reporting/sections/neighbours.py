"""Nearest neighbours: a few samples, and those that the encoder finds most similar to them, for each view."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mvssl.reporting.content import Absent, Picture, Section
from mvssl.reporting.pictures import Pixels, encode_pixels, view_pixels
from mvssl.reporting.samples import EncodedSamples
from mvssl.text import counted

QUERIES, NEAREST, MAX_VIEWS = 6, 5, 6


class Cell(NamedTuple):
    """A sample of a row; `kind` is the style sheet's class: query, same or other label, or none."""

    picture: Picture
    caption: str
    kind: str


class NeighboursOfView(NamedTuple):
    view: str
    agreement: str  # how often neighbours have the label of the query
    columns: list[str]
    cells: list[Cell]  # row by row: a query, then its neighbours


@dataclass(frozen=True)
class Neighbours(Section):
    name, title = "neighbours", "Nearest neighbours"
    note: str
    views: list[NeighboursOfView]


def show_neighbours(encoded: EncodedSamples) -> Neighbours | Absent:
    """Return the nearest of all encoded samples for some of them."""
    n, left = len(encoded.indices), len(encoded.features) - MAX_VIEWS
    if n < 3:
        return Absent(Neighbours.title, f"too few to compare: {counted(n, 'sample')}")
    queries = choose_queries(encoded.labels, n)
    note = (
        f"{n:,} {encoded.split} samples, spread evenly over the shards, each compared with the others by the cosine of "
        f"their features ({encoded.origin}). Queries are chosen by label and place, not by result."
    )
    note += f" {counted(left, 'more view')} not drawn." if left > 0 else ""
    return Neighbours(note, [_show_view(encoded, view, queries) for view in list(encoded.features)[:MAX_VIEWS]])


def choose_queries(labels: Tensor | None, n: int) -> list[int]:
    """Return the first sample of some classes if there are enough classes, else samples at equal distances."""
    if labels is not None and labels.ndim == 1:
        classes = torch.unique(labels[labels >= 0]).tolist()
        if len(classes) >= QUERIES:
            classes = [classes[k * len(classes) // QUERIES] for k in range(QUERIES)]
            return [int((labels == one).nonzero()[0]) for one in classes]
    count = min(QUERIES, n)
    return [k * n // count for k in range(count)]


def find_nearest(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return cosine and number of the `k` most similar other samples: [n, d] -> [n, k] twice."""
    unit = F.normalize(features.float().nan_to_num(0.0), dim=1)
    similarity = (unit @ unit.T).fill_diagonal_(-torch.inf)
    return similarity.topk(min(k, len(features) - 1), dim=1)


def _show_view(encoded: EncodedSamples, view: str, queries: list[int]) -> NeighboursOfView:
    cosine, number = find_nearest(encoded.features[view], NEAREST)
    rows = [(query, number[query].tolist(), cosine[query].tolist()) for query in queries]
    needed = sorted({sample for query, others, _ in rows for sample in (query, *others)})
    batch = encoded.decode(needed)
    clean = encoded.run.views.clean(batch, "cpu")[view]
    pixels = dict(zip(needed, view_pixels(encoded.run.views, view, clean, batch), strict=True))
    cells = []
    for query, others, cosines in rows:
        cells.append(_build_cell(encoded, pixels[query], query))
        cells += [_build_cell(encoded, pixels[k], k, query, c) for k, c in zip(others, cosines, strict=True)]
    columns = ["query", *(str(k + 1) for k in range(number.shape[1]))]
    return NeighboursOfView(view, _describe_agreement(encoded, number), columns, cells)


def _describe_agreement(encoded: EncodedSamples, number: Tensor) -> str:
    """Return how often neighbours share the label, over all samples, beside chance."""
    labels = encoded.labels
    if labels is None:
        return ""
    if labels.ndim != 1:
        return "below each neighbour: how many of the query's labels it shares"
    known = labels >= 0
    if known.sum() < 2:
        return ""
    same = (labels[number] == labels[:, None]).float()[known].mean()
    counts = torch.bincount(labels[known]).double()
    chance = (counts * (counts - 1)).sum() / (counts.sum() * (counts.sum() - 1))
    return f"the {number.shape[1]} nearest share the label in {same:.0%} of cases; any two samples in {chance:.0%}"


def _build_cell(
    encoded: EncodedSamples, pixels: Pixels, sample: int, query: int | None = None, cosine: float = 0.0
) -> Cell:
    """Build the cell of a neighbour, or of a query if `query` is None."""
    label, agrees = _compare_labels(encoded, sample, query)
    described = f"label {label}" if label else ""
    if query is None:
        return Cell(encode_pixels(pixels, ", ".join(filter(None, ("query", described)))), label, "query")
    text = ", ".join(filter(None, ("neighbour", described, f"cosine {cosine:.2f}")))
    kind, mark = {True: ("same", "✓ "), False: ("other", "✗ "), None: ("", "")}[agrees]
    return Cell(encode_pixels(pixels, text), mark + (label or f"{cosine:.2f}"), kind)


def _compare_labels(encoded: EncodedSamples, sample: int, query: int | None) -> tuple[str, bool | None]:
    """Return the label of a sample and whether it is that of the query; of several labels, how many are shared."""
    if encoded.labels is None:
        return "", None
    own = encoded.labels[sample]
    if encoded.labels.ndim == 1:
        name = encoded.class_name(int(own)) if own >= 0 else ""
        return name, None if query is None or not name else bool(own == encoded.labels[query])
    if query is None:
        return f"{int(own.sum())} labels", None
    wanted = encoded.labels[query] > 0
    return f"{int((wanted & (own > 0)).sum())} of {int(wanted.sum())}", None
