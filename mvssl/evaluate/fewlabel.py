"""Few labels: what logistic regression makes of one or ten labels per class, averaged over random draws of them.

in   features and labels of train and test, shots (labels per class), draws (how often they are drawn anew)
out  the mean over draws, its standard error and 95 % interval

A draw depends on (labels, shots, seed, number of the draw) alone, so every encoder is given the same labels and
differences between encoders are paired. The regression minimises |w|^2 / 2 + C * sum of cross-entropies, with features
standardised by all of train and divided by sqrt(d): C then means the same for narrow and wide features.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mvssl.evaluate.features import Labelled, Standard, classes, one_hot
from mvssl.evaluate.metrics import Result, over_draws, score


class Fit(NamedTuple):
    """Weights [d, c] and bias [c] of a logistic regression."""

    weight: Tensor
    bias: Tensor


def draw(labels: Tensor, shots: int, seed: int, number: int) -> Tensor:
    """int64 [m], sorted: `shots` samples of every class without replacement, all of a smaller class.

    With multi-hot labels [n, c], `shots` positives of every class; a sample drawn for two classes counts once.
    """
    generator = np.random.default_rng([seed, shots, number])
    multi = one_hot(labels, classes(labels)).cpu().numpy() > 0
    members = [np.flatnonzero(column) for column in multi.T]
    drawn = [generator.permutation(rows)[:shots] for rows in members]
    return torch.from_numpy(np.unique(np.concatenate(drawn)))


def logistic_regression(features: Tensor, targets: Tensor, *, c: float, multi: bool, tolerance: float = 1e-4) -> Fit:
    """Minimise |w|^2 / 2 + c * sum of cross-entropies; features [n, d], targets [n, classes]; the bias is free.

    Softmax over classes, or with `multi` one sigmoid per class. Accelerated gradient descent with restarts (O'Donoghue
    and Candes, 2015) until no entry of the gradient exceeds `tolerance` * c; double precision inside.
    """
    x, basis = _rotate(features.double())
    x, y = torch.cat([x, torch.ones_like(x[:, :1])], dim=1), targets.double()
    penalty = torch.ones_like(x[:1]).T
    penalty[-1] = 0
    step = 1 / (1 + c * (0.25 if multi else 0.5) * torch.linalg.matrix_norm(x, 2) ** 2)
    w = ahead = x.new_zeros(x.shape[1], y.shape[1])
    t = 1.0
    for _ in range(20_000):
        scores = x @ ahead
        p = scores.sigmoid() if multi else scores.softmax(dim=1)
        gradient = penalty * ahead + c * x.T @ (p - y)
        if gradient.abs().max() < tolerance * c:
            break
        after = ahead - step * gradient
        if (gradient * (after - w)).sum() > 0:
            t = 1.0  # momentum has begun to climb
        faster = (1 + (1 + 4 * t * t) ** 0.5) / 2
        w, ahead, t = after, after + (t - 1) / faster * (after - w), faster
    return Fit((basis @ ahead[:-1]).to(features.dtype), ahead[-1].to(features.dtype))


def _rotate(x: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates of the rows in their own span, [n, r] with r <= n, and its orthonormal basis [d, r].

    The penalised optimum lies in the span, so n unknowns do the work of d.
    """
    if x.shape[1] <= len(x):
        return x, torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    basis, coordinates = torch.linalg.qr(x.T)
    return coordinates.T, basis


def fewlabel(train: Labelled, test: Labelled, *, shots: int, draws: int = 20, c: float = 10.0, seed: int = 0) -> Result:
    """Mean score over `draws` label sets of `shots` per class. Only the drawn labels are used."""
    standard = Standard.of(train.features)
    shrink = train.features.shape[1] ** -0.5
    multi = train.labels.ndim == 2
    targets = one_hot(train.labels, classes(train.labels))
    fits, sizes = [], []
    for number in range(draws):
        rows = draw(train.labels, shots, seed, number).to(targets.device)
        x = standard(train.features[rows]) * shrink
        fits.append(logistic_regression(x, targets[rows], c=c, multi=multi))
        sizes.append(len(rows))
    protocol = {
        "shots": shots,
        "draws": draws,
        "labels_per_draw": sum(sizes) / len(sizes),
        "classifier": "logistic regression, " + ("one sigmoid per class" if multi else "softmax"),
        "C": c,
        "scaling": "standardised by all of train (no labels needed), divided by sqrt(width)",
        "chosen": "fixed beforehand",
        "standard_error": "std over draws / sqrt(draws); the same draws for every encoder",
    }
    return over_draws(_scores(fits, standard, shrink, test), protocol)


def _scores(fits: list[Fit], standard: Standard, shrink: float, test: Labelled) -> list[float]:
    weight, bias = torch.stack([f.weight for f in fits]), torch.stack([f.bias for f in fits])  # [draws, d, c]
    flat = weight.permute(1, 0, 2).flatten(1)
    rows = [standard(chunk) * shrink @ flat for chunk in test.features.split(4096)]
    scores = torch.cat(rows).unflatten(1, bias.shape) + bias  # [n, draws, c]
    return [score(scores[:, number], test.labels) for number in range(len(fits))]
