"""The features in two dimensions by label: t-SNE of at most a thousand samples, so that it takes seconds.

van der Maaten and Hinton, JMLR 2008, as scikit-learn computes it (Barnes-Hut), from the first 50 principal components.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor

from mvssl.errors import DataError
from mvssl.evaluation.probes.spectrum import effective_rank
from mvssl.figures.charts import PALETTE, SQUARE, points_svg
from mvssl.reporting.content import Block, Drawing, Drawings, Key, Label, Text, describe_rest
from mvssl.reporting.inputs import Inputs
from mvssl.reporting.samples import EncodedSamples, principal_components
from mvssl.text import counted

MAX_POINTS, MAX_VIEWS, MIN_POINTS = 1000, 4, 12
LINE_HEIGHT, LETTER = 15, 7.4  # of a group's name, where the drawing is SQUARE wide


class Group(NamedTuple):
    """Points [n, 2] in the unit square; a group without a colour is gray and has no name."""

    name: str
    points: Tensor
    colour: int | None


def show_embedding(inputs: Inputs) -> list[Block]:
    """Return for each view the encoded samples as points, coloured and named by class."""
    encoded = inputs.encoded.get()
    count = len(encoded.indices)
    if count < MIN_POINTS:
        raise DataError(f"too few to place: {counted(count, 'sample')}")
    chosen = slice(None, None, -(-count // MAX_POINTS))
    labels = None if encoded.labels is None else encoded.labels[chosen]
    views = list(encoded.features.items())[:MAX_VIEWS]
    note = (
        f"Features of {len(encoded.indices[chosen]):,} {encoded.split} samples ({encoded.origin}), placed by t-SNE so "
        "that neighbours stay neighbours. Axes and distances between far groups have no meaning; seed 0."
    )
    drawings = [_draw_view(encoded, view, x[chosen], labels) for view, x in views]
    return [Text(note + describe_rest(len(encoded.features) - MAX_VIEWS, "view")), Drawings(drawings, wide=True)]


def place_features(features: Tensor) -> Tensor:
    """Return features [n, d] as places in the unit square [n, 2]; features without variance are in its middle."""
    from sklearn.manifold import TSNE  # slow to import

    rows, _ = principal_components(features.float().nan_to_num(0.0), 50)
    if not rows.abs().max() > 0:
        return torch.full((len(rows), 2), 0.5)
    rows = rows / rows.std()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about thread pools and ties; a reader cannot act on them
        tsne = TSNE(perplexity=min(30, (len(rows) - 1) / 3), init="pca", random_state=0)
        places = torch.from_numpy(tsne.fit_transform(rows.numpy()))
    low, high = places.amin(0), places.amax(0)
    return (places - low) / (high - low).clamp(min=1e-9)


def group_points(encoded: EncodedSamples, places: Tensor, labels: Tensor | None) -> tuple[list[Group], str]:
    """Return the points by class, the largest classes in colour and the others gray, and a note on that."""
    if labels is None:
        return [Group("", places, 0)], ""
    if labels.ndim == 2:
        chosen = int((labels.float().mean(0) - 0.5).abs().argmin())
        name, present = encoded.class_name(chosen), labels[:, chosen] > 0
        name = name if encoded.classes else f"class {name}"
        note = f"Samples have several labels. The colour is {name}, which {present.float().mean():.0%} have."
        groups = [Group(f"{name} absent", places[~present], 0), Group(f"{name} present", places[present], 1)]
    else:
        classes, counts = torch.unique(labels[labels >= 0], return_counts=True)
        order = counts.argsort(descending=True, stable=True)
        largest = sorted(classes[order][: len(PALETTE)].tolist())
        few = len(classes) > len(PALETTE)
        note = f"The {len(PALETTE)} largest of {len(classes)} classes have a colour." if few else ""
        groups = [Group("", places[~torch.isin(labels, torch.tensor(largest))], None)]
        groups += [Group(encoded.class_name(one), places[labels == one], k) for k, one in enumerate(largest)]
    return [group for group in groups if len(group.points)], note


def _draw_view(encoded: EncodedSamples, view: str, features: Tensor, labels: Tensor | None) -> Drawing:
    rank = float(effective_rank(features))
    note = f"Effective rank {rank:.3g} of {features.shape[1]}." if rank else "All features are equal: a collapse."
    groups, group_note = group_points(encoded, place_features(features), labels)
    named = [group for group in groups if group.name and group.colour is not None]
    by = f", by {', '.join(group.name for group in named)}" if named else ""
    description = f"{view}: {counted(len(features), 'sample')} as points{by}"
    svg = Markup(points_svg([(group.points.numpy(), group.colour) for group in groups]))
    legend = [Key(group.name, "dot", group.colour or 0) for group in named]
    # groups of several labels have no place of their own in the plane
    names = place_names(named) if labels is None or labels.ndim == 1 else []
    return Drawing(view, "", svg, description, legend, f"{note} {group_note}".strip(), names)


def place_names(groups: Sequence[Group]) -> list[Label]:
    """Return the name of each group at the median of its points, moved up or down so that names do not overlap."""
    widths = np.array([LETTER * len(group.name) for group in groups])
    medians = np.array([group.points.median(dim=0).values.tolist() for group in groups]).reshape(-1, 2)
    left = np.clip(SQUARE * medians[:, 0], widths / 2, SQUARE - widths / 2)
    top = np.clip(SQUARE * (1 - medians[:, 1]), LINE_HEIGHT, SQUARE - LINE_HEIGHT)
    order = top.argsort(kind="stable")
    for down, names in ((1, order), (-1, order[::-1])):  # first down, then up where the square ends
        limit = LINE_HEIGHT if down == 1 else LINE_HEIGHT - SQUARE
        for number, i in enumerate(names):
            placed = [j for j in names[:number] if abs(left[i] - left[j]) < (widths[i] + widths[j]) / 2]
            top[i] = down * max([down * top[i], limit, *(down * top[j] + LINE_HEIGHT for j in placed)])
    return [
        Label(group.name, 100 * x / SQUARE, 100 * y / SQUARE, group.colour or 0)
        for group, x, y in zip(groups, left, top, strict=True)
    ]
