"""A 2-D map of the features by label: t-SNE of at most a thousand samples, so that it takes seconds.

van der Maaten and Hinton, JMLR 2008, as scikit-learn computes it (Barnes-Hut), from the first 50 principal components.
"""

import warnings

import torch
from torch import Tensor

from mvssl.evaluation.probes.spectrum import effective_rank
from mvssl.reporting.html import Html, el
from mvssl.reporting.picture import components
from mvssl.reporting.samples import Look
from mvssl.reporting.scatter import COLOURS, Group, scatter
from mvssl.reporting.sections import Absent, Section
from mvssl.text import counted

POINTS, VIEWS, LEAST = 1000, 4, 12


def embedding(look: Look) -> Section | Absent:
    """A map per view, points coloured and named by class."""
    if len(look.rows) < LEAST:
        return Absent("Map of the embedding", f"too few to place: {counted(len(look.rows), 'sample')}")
    step = -(-len(look.rows) // POINTS)
    labels = None if look.labels is None else look.labels[::step]
    figures = [_figure(look, view, x[::step], labels) for view, x in list(look.features.items())[:VIEWS]]
    text = (
        f"Features of {len(look.rows[::step]):,} {look.split} samples ({look.features_of}), placed "
        "by t-SNE so that neighbours stay neighbours. Distances between far groups and axes mean nothing; seed 0."
    )
    left = len(look.features) - VIEWS
    text += f" {left} more view{'s are' if left > 1 else ' is'} not drawn." if left > 0 else ""
    body = el("div", el("p", text, class_="note"), el("div", figures, class_="charts wide"))
    return Section("embedding", "Map of the embedding", body)


def place(features: Tensor) -> Tensor:
    """Features [n, d] in the unit square [n, 2]; all in its middle where they never vary."""
    from sklearn.manifold import TSNE

    found, _ = components(features.float().nan_to_num(0.0), 50)
    if not found.abs().max() > 0:
        return torch.full((len(found), 2), 0.5)
    found = found / found.std()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # thread pools, ties: nothing that a reader could act on
        made = TSNE(perplexity=min(30, (len(found) - 1) / 3), init="pca", random_state=0).fit_transform(found.numpy())
    placed = torch.from_numpy(made)
    low, high = placed.amin(0), placed.amax(0)
    return (placed - low) / (high - low).clamp(min=1e-9)


def _figure(look: Look, view: str, features: Tensor, labels: Tensor | None) -> Html:
    rank = float(effective_rank(features))
    note = f"Effective rank {rank:.3g} of {features.shape[1]}." if rank else "All features are equal: a collapse."
    groups, said = group(look, place(features), labels)
    # several labels make no groups in the plane, so names at their middles would only lie
    return scatter(view, groups, f"{note} {said}".strip(), named=labels is None or labels.ndim == 1)


def group(look: Look, placed: Tensor, labels: Tensor | None) -> tuple[list[Group], str]:
    """Points by class: the largest classes in colour, others gray; and what that means, in words."""
    if labels is None:
        return [Group("", _points(placed), 0)], ""
    if labels.ndim == 2:
        kind = int((labels.float().mean(0) - 0.5).abs().argmin())
        name, there = look.class_name(kind), labels[:, kind] > 0
        name = name if look.classes else f"class {name}"
        share = f"{there.float().mean():.0%}"
        said = f"Samples have several labels; the colour is one of them, {name}: {share} have it, nearest to half."
        parts = [
            Group(f"{name} absent", _points(placed[~there]), 0),
            Group(f"{name} present", _points(placed[there]), 1),
        ]
        return [p for p in parts if p.points], said
    kinds, counts = torch.unique(labels[labels >= 0], return_counts=True)
    largest = sorted(kinds[counts.argsort(descending=True, stable=True)][:COLOURS].tolist())
    rest = ~torch.isin(labels, torch.tensor(largest))
    parts = [Group("", _points(placed[rest]), None)]
    parts += [Group(look.class_name(k), _points(placed[labels == k]), c) for c, k in enumerate(largest)]
    said = f"The {COLOURS} largest of {len(kinds)} classes are named, the others gray." if len(kinds) > COLOURS else ""
    return [p for p in parts if p.points], said


def _points(placed: Tensor) -> list[tuple[float, float]]:
    return [(px, py) for px, py in placed.tolist()]
