"""Nearest neighbours: a few samples, and those that the encoder finds most similar to them, for each view."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mvssl.errors import DataError
from mvssl.reporting.content import Block, Cell, Figure, Figures, Grid, Text, describe_rest
from mvssl.reporting.inputs import Inputs
from mvssl.reporting.pictures import Pixels, encode_pixels, view_pixels
from mvssl.reporting.samples import EncodedSamples
from mvssl.text import counted

QUERIES, NEAREST, MAX_VIEWS = 6, 5, 6


def show_neighbours(inputs: Inputs) -> list[Block]:
    """Return the nearest of all encoded samples for some of them."""
    encoded = inputs.encoded.get()
    n = len(encoded.indices)
    if n < 3:
        raise DataError(f"too few to compare: {counted(n, 'sample')}")
    queries = choose_queries(encoded.labels, n)
    note = (
        f"{n:,} {encoded.split} samples, spread evenly over the shards, each compared with the others by the cosine of "
        f"their features ({encoded.origin}). Queries are chosen by label and place, not by result."
    )
    note += describe_rest(len(encoded.features) - MAX_VIEWS, "view")
    return [Text(note), Figures([_show_view(encoded, view, queries) for view in list(encoded.features)[:MAX_VIEWS]])]


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


def _show_view(encoded: EncodedSamples, view: str, queries: list[int]) -> Figure:
    cosine, number = find_nearest(encoded.features[view], NEAREST)
    needed = sorted({*queries, *number[queries].flatten().tolist()})
    batch = encoded.decode(needed)
    clean = encoded.run.views.clean(batch, "cpu")[view]
    pixels = dict(zip(needed, view_pixels(encoded.run.views, view, clean, batch), strict=True))
    cells = [cell for query in queries for cell in _build_row(encoded, pixels, query, cosine[query], number[query])]
    heads = ["query", *(str(k + 1) for k in range(number.shape[1]))]
    return Figure(view, _describe_agreement(encoded.labels, number), [Grid(cells, len(heads), heads)])


def _describe_agreement(labels: Tensor | None, number: Tensor) -> str:
    """Return how often neighbours share the label, over all samples, beside chance."""
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


def _build_row(
    encoded: EncodedSamples, pixels: dict[int, Pixels], query: int, cosine: Tensor, number: Tensor
) -> Iterator[Cell]:
    """Yield the query, then its neighbours with a mark for an equal or another label."""
    label = _describe_label(encoded, query)
    yield Cell(encode_pixels(pixels[query], f"query{f', label {label}' if label else ''}"), label, "query")
    for sample, similarity in zip(number.tolist(), cosine.tolist(), strict=True):
        label = _describe_label(encoded, sample, query)
        text = f"neighbour{f', label {label}' if label else ''}, cosine {similarity:.2f}"
        kind, caption = "", label or f"{similarity:.2f}"
        if label and encoded.labels is not None and encoded.labels.ndim == 1:
            same = encoded.labels[sample] == encoded.labels[query]
            kind, caption = ("same", f"✓ {label}") if same else ("other", f"✗ {label}")
        yield Cell(encode_pixels(pixels[sample], text), caption, kind)


def _describe_label(encoded: EncodedSamples, sample: int, query: int | None = None) -> str:
    """Return the label of a sample; of several labels their number, or how many are also those of the query."""
    if encoded.labels is None:
        return ""
    own = encoded.labels[sample]
    if own.ndim == 0:
        return encoded.class_name(int(own)) if own >= 0 else ""
    if query is None:
        return f"{int(own.sum())} labels"
    wanted = encoded.labels[query] > 0
    return f"{int((wanted & (own > 0)).sum())} of {int(wanted.sum())}"
