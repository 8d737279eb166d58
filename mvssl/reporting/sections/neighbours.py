"""Nearest neighbours: a few samples, and those that the encoder finds most like them, view by view."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mvssl.reporting import picture
from mvssl.reporting.html import Html, el, join
from mvssl.reporting.samples import Look
from mvssl.reporting.sections import Absent, Section
from mvssl.text import counted

QUERIES, NEAREST, VIEWS = 6, 5, 6


def neighbours(look: Look) -> Section | Absent:
    """A figure per view; every sample is compared with all the others of the look."""
    n = len(look.rows)
    if n < 3:
        return Absent("Nearest neighbours", f"too few to compare: {counted(n, 'sample')}")
    queries = choose(look.labels, n)
    figures = [_figure(look, view, queries) for view in list(look.features)[:VIEWS]]
    left = len(look.features) - VIEWS
    text = (
        f"{n:,} {look.split} samples, spread evenly over the shards, each compared with the others by the cosine of "
        f"their features ({look.features_of}). Queries are chosen by label and place, not result."
    )
    more = f" {left} more view{'s are' if left > 1 else ' is'} not drawn." if left > 0 else ""
    body = el("div", el("p", text + more, class_="note"), el("div", figures, class_="figures"))
    return Section("neighbours", "Nearest neighbours", body)


def choose(labels: Tensor | None, n: int) -> list[int]:
    """Queries: the first sample of different classes where there are classes, else samples evenly apart."""
    if labels is not None and labels.ndim == 1:
        kinds = torch.unique(labels[labels >= 0]).tolist()
        if len(kinds) >= QUERIES:
            kinds = [kinds[k * len(kinds) // QUERIES] for k in range(QUERIES)]
            return [int((labels == kind).nonzero()[0]) for kind in kinds]
    asked = min(QUERIES, n)
    return [k * n // asked for k in range(asked)]


def nearest(features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosine and number of the `k` most similar others of every sample: [n, d] -> [n, k] twice."""
    unit = F.normalize(features.float().nan_to_num(0.0), dim=1)
    similarity = (unit @ unit.T).fill_diagonal_(-torch.inf)
    return similarity.topk(min(k, len(features) - 1), dim=1)


def _figure(look: Look, view: str, queries: list[int]) -> Html:
    cosine, number = nearest(look.features[view], NEAREST)
    found = [[q, *number[q].tolist()] for q in queries]
    wanted = sorted({sample for row in found for sample in row})
    place = {sample: k for k, sample in enumerate(wanted)}
    views, batch = look.run.views, look.batch(wanted)
    shown = picture.look(views, view, views.clean(batch, "cpu")[view], batch.columns[views.source_of(view)])
    rows = []
    for q, *others in found:
        rows.append(_cell(look, shown[place[q]], q, None, None))
        rows += [_cell(look, shown[place[o]], o, q, float(c)) for o, c in zip(others, cosine[q], strict=True)]
    head = [el("b", "query"), *(el("b", str(k + 1)) for k in range(number.shape[1]))]
    grid = el("div", head, rows, class_="near", style=f"--columns: {1 + number.shape[1]}")
    return el("figure", el("figcaption", el("b", view), _agreement(look, number)), grid)


def _agreement(look: Look, number: Tensor) -> str | None:
    """How often neighbours share the label, over all samples, beside chance."""
    if look.labels is None:
        return None
    if look.labels.ndim != 1:
        return " under a neighbour stands how many of the query's labels it has as well"
    known = look.labels >= 0
    if known.sum() < 2:
        return None
    same = (look.labels[number] == look.labels[:, None]).float()[known].mean()
    counts = torch.bincount(look.labels[known]).double()
    chance = (counts * (counts - 1)).sum() / (counts.sum() * (counts.sum() - 1))
    k = number.shape[1]
    return f" the {k} nearest share the label in {same:.0%} of cases; any two samples in {chance:.0%}"


def _cell(look: Look, x: Tensor, sample: int, query: int | None, cosine: float | None) -> Html:
    text, agrees = _label(look, sample, query)
    said = f"{'query' if query is None else 'neighbour'}{f', label {text}' if text else ''}"
    said += f", cosine {cosine:.2f}" if cosine is not None else ""
    mark = {True: "✓ ", False: "✗ ", None: ""}[agrees]
    under = text or (f"{cosine:.2f}" if cosine is not None else "")
    kind = {True: "same", False: "other", None: "query" if query is None else None}[agrees]
    return el("span", picture.cell(x, said), el("small", join([mark, under]), title=said), class_=kind)


def _label(look: Look, sample: int, query: int | None) -> tuple[str, bool | None]:
    """What a sample is, and whether that agrees with the query; of several labels, how many it shares."""
    if look.labels is None:
        return "", None
    own = look.labels[sample]
    if look.labels.ndim == 1:
        name = look.class_name(int(own)) if own >= 0 else ""
        return name, None if query is None or not name else bool(own == look.labels[query])
    if query is None:
        return f"{int(own.sum())} labels", None
    asked = look.labels[query] > 0
    return f"{int((asked & (own > 0)).sum())} of {int(asked.sum())}", None
