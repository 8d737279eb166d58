"""Few labels: what logistic regression makes of one or ten labels per class, averaged over random draws of them.

in   features and labels of train and test, shots (labels per class), draws (how often they are drawn anew)
out  the mean over draws, its standard error and 95 % interval

A draw depends on (labels, shots, seed, number of the draw) alone, so every encoder is given the same labels and
differences between encoders are paired. The regression minimises |w|^2 / 2 + C * sum of cross-entropies, with features
standardised by all of train and divided by sqrt(d): C then means the same for narrow and wide features.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mvssl.evaluate.features import Labelled, Standard, classes, one_hot
from mvssl.evaluate.metrics import Result, metric_of, over_draws, score


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

    Softmax over classes, or with `multi` one sigmoid per class. L-BFGS (Liu and Nocedal, 1989) until no entry of the
    gradient exceeds `tolerance` * c; double precision inside.
    """
    given, y = features.double(), targets.double()
    x, back = _rotate(given)
    x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    penalty = torch.ones_like(x[:1]).T
    penalty[-1] = 0
    w = x.new_zeros(x.shape[1], y.shape[1])
    solver = torch.optim.LBFGS(
        [w], max_iter=20_000, max_eval=30_000, tolerance_grad=tolerance * c, tolerance_change=0,
        history_size=20, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        scores = x @ w
        p = scores.sigmoid() if multi else scores.softmax(dim=1)
        w.grad = penalty * w + c * x.T @ (p - y)
        log_p = F.logsigmoid(scores) * y + F.logsigmoid(-scores) * (1 - y) if multi else scores.log_softmax(dim=1) * y
        return (penalty * w**2).sum() / 2 - c * log_p.sum()

    solver.step(loss)  # pyright: ignore[reportArgumentType]
    return Fit(back(w[:-1]).to(features.dtype), w[-1].to(features.dtype))


def _rotate(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Coordinates of the rows in their own span, [n, r] with r <= n, and what takes weights [r, c] back to [d, c].

    The penalised optimum lies in the span, so n unknowns do the work of d.
    """
    if x.shape[1] <= len(x):
        return x, lambda w: w
    square, vectors = torch.linalg.eigh(x @ x.T)
    kept = square > 1e-12 * square[-1]
    length, vectors = square[kept].sqrt(), vectors[:, kept]
    return vectors * length, lambda w: x.T @ (vectors / length @ w)


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
    what = f"{shots} label{'s' if shots > 1 else ''}/class"
    return over_draws(_scores(fits, standard, shrink, test), protocol, metric_of(test.labels), what)


def _scores(fits: list[Fit], standard: Standard, shrink: float, test: Labelled) -> list[float]:
    weight, bias = torch.stack([f.weight for f in fits]), torch.stack([f.bias for f in fits])  # [draws, d, c]
    flat = weight.permute(1, 0, 2).flatten(1)
    rows = [standard(chunk) * shrink @ flat for chunk in test.features.split(4096)]
    scores = torch.cat(rows).unflatten(1, bias.shape) + bias  # [n, draws, c]
    return [score(scores[:, number], test.labels) for number in range(len(fits))]
