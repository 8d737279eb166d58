"""Few labels: logistic regression on one or ten labels per class, averaged over random draws of the labels.

in   features and labels of train and test, shots (labels per class), draws (the number of label sets)
out  the mean over draws, its standard error and 95 % interval

A draw depends only on labels, shots, seed and its number. So every encoder has the same labels, and differences between
encoders are paired. The regression minimises |w|^2 / 2 + C * sum of cross-entropies, with features standardised by all
of train and divided by sqrt(d): C then means the same for narrow and wide features.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from mvssl.evaluation.features.labelled import Labelled, Standardiser, count_classes, one_hot
from mvssl.evaluation.probes.base import FunctionProbe
from mvssl.evaluation.probes.fitting import refuse_one_class
from mvssl.evaluation.results.metrics import NotPossible, Result, score_draws
from mvssl.recipe import Evaluate
from mvssl.text import counted

CURVATURE = 0.1  # about p (1 - p) of a class at the end of the fit


class Regression(NamedTuple):
    """Weights [d, c] and bias [c] of a logistic regression."""

    weight: Tensor
    bias: Tensor


def rows_of_classes(labels: Tensor) -> list[np.ndarray]:
    """Return the samples of each class, int64, ascending; of multi-hot labels [n, c] the positives of each class."""
    values = labels.cpu().numpy()
    if labels.ndim == 2:
        return [np.flatnonzero(column > 0) for column in values.T]
    ends = np.bincount(values).cumsum()
    return np.split(np.argsort(values, kind="stable"), ends[:-1])


def draw_shots(of_class: list[np.ndarray], shots: int, seed: int, number: int) -> Tensor:
    """Return int64 [m], sorted: `shots` samples of every class without replacement, or all of a smaller class.

    With multi-hot labels: `shots` positives of every class. A sample drawn for two classes counts once.
    """
    generator = np.random.default_rng([seed, shots, number])
    drawn = [generator.permutation(rows)[:shots] for rows in of_class]
    return torch.from_numpy(np.unique(np.concatenate(drawn)))


def logistic_regression(
    features: Tensor, targets: Tensor, *, c: float, multi: bool, tolerance: float = 1e-3
) -> Regression:
    """Minimise |w|^2 / 2 + c * sum of cross-entropies; features [n, d], targets [n, classes]; the bias is free.

    Softmax over classes, or with `multi` one sigmoid per class. L-BFGS (Liu and Nocedal, 1989) in double precision, in
    coordinates in which the second derivative is about 1, until no entry of the gradient exceeds `tolerance` * sqrt(c).
    """
    # Own code: scikit-learn stops elsewhere, which changes about one prediction in a hundred and so the records of old
    # runs. It has no multi-hot labels and no GPU. It is faster only for many labels of many classes.
    y, center = targets.double(), features.mean(0)
    # the free bias absorbs the mean, and is then independent of the weights
    x, weights_of = _reduce_width(features - center)
    identity = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    # coordinates u in which the penalised loss has a second derivative of about 1 in all directions
    factor = cholesky(c * CURVATURE * x.T @ x + identity)
    scaling = torch.linalg.solve_triangular(factor.T, identity, upper=True)
    at, penalty = x @ scaling, scaling.T @ scaling  # scores are at @ u, and |w|^2 is u' penalty u
    of_bias = (1 + c * CURVATURE * len(x)) ** -0.5
    u = x.new_zeros(x.shape[1] + 1, y.shape[1])
    solver = torch.optim.LBFGS(
        [u], max_iter=20_000, max_eval=30_000, tolerance_grad=tolerance * c**0.5, tolerance_change=0,
        history_size=20, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        scores = at @ u[:-1] + of_bias * u[-1]
        p = scores.sigmoid() if multi else scores.softmax(dim=1)
        error, shrunk = c * (p - y), penalty @ u[:-1]
        u.grad = torch.cat([shrunk + at.T @ error, of_bias * error.sum(0, keepdim=True)])
        at_zero = F.softplus(scores).sum() if multi else scores.logsumexp(dim=1).sum()  # -log p = this - y * scores
        return (u[:-1] * shrunk).sum() / 2 + c * (at_zero - (y * scores).sum())

    solver.step(loss)  # pyright: ignore[reportArgumentType]
    weight = weights_of(scaling @ u[:-1])
    bias = of_bias * u[-1] - center.double() @ weight
    return Regression(weight.to(features.dtype), bias.to(features.dtype))


def _reduce_width(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return coordinates [n, r] of the rows in their span, r <= n, and the map of weights [r, k] back to [d, k].

    The penalised optimum lies in the span, so n unknowns are enough. R R' = x x' has the rows' inner products.
    """
    x = x.double()  # in float32 the products of wide rows err by more than the smallest eigenvalue
    if x.shape[1] <= len(x):
        return x, lambda w: w
    r = cholesky(x @ x.T)
    return r, lambda w: x.T @ torch.linalg.solve_triangular(r.T, w, upper=True)


def cholesky(square: Tensor) -> Tensor:
    """Return the lower R [n, n] with R R' = `square`, which may be singular; float64.

    Equal rows, or rows that add up to zero, give eigenvalues of 0, which rounding makes negative. So a share of the
    trace is added to the diagonal: far above rounding, far below the differences of features.
    """
    n = len(square)
    share = 1e-10 * square.diagonal().mean() + torch.finfo(square.dtype).tiny
    return torch.linalg.cholesky(square + share * torch.eye(n, dtype=square.dtype, device=square.device))


def fewlabel(
    train: Labelled, test: Labelled, *, shots: int, draws: int = 20, c: PositiveFloat = 10.0,
    head: Literal["mib"] | None = None, seed: int = 0,
) -> Result:  # fmt: skip
    """Return the mean score over `draws` label sets of `shots` per class. Only the drawn labels are used.

    `head="mib"` scales and fits as MIB's public code does (Federici et al., 2020, arXiv:2002.07017). Raise
    `NotPossible` if fewer than half of the classes have `shots` labels, or for multi-hot labels with `mib`.
    """
    refuse_one_class(train.labels)
    of_class = rows_of_classes(train.labels)
    enough = sum(len(rows) >= shots for rows in of_class)
    if enough < 0.5 * len(of_class):
        raise NotPossible(
            f"{counted(shots, 'label')} per class: {enough} of {len(of_class)} classes have so many in train"
        )
    drawn = [draw_shots(of_class, shots, seed, number).to(train.labels.device) for number in range(draws)]
    scores, how = _score_as_mib(train, test, drawn, c, seed) if head == "mib" else _score(train, test, drawn, c)
    protocol = {
        "shots": shots,
        "draws": draws,
        "labels_per_draw": sum(map(len, drawn)) / len(drawn),
        **how,
        "C": c,
        "chosen": "fixed beforehand",
        "standard_error": "over draws and test samples, both drawn anew; the same of both for every encoder",
    }
    return score_draws(scores, test.labels, protocol, seed, what=name_shots(shots))


def name_shots(shots: int) -> str:
    """Return the name in records of a result with this number of labels per class."""
    return f"{shots} label{'s' if shots > 1 else ''}/class"


Scored = tuple[Iterator[Tensor], dict[str, Any]]  # scores [n, c] on test of each draw, and entries of the protocol


def _score(train: Labelled, test: Labelled, drawn: list[Tensor], c: float) -> Scored:
    standard = Standardiser.of(train.features)
    shrink = train.features.shape[1] ** -0.5
    multi, width = train.labels.ndim == 2, count_classes(train.labels)

    def score(rows: Tensor) -> Tensor:
        x, targets = standard(train.features[rows]) * shrink, one_hot(train.labels[rows], width)
        weight, bias = logistic_regression(x, targets, c=c, multi=multi)
        return torch.cat([standard(part) * shrink @ weight + bias for part in test.features.split(4096)])

    return map(score, drawn), {
        "classifier": "logistic regression, " + ("one sigmoid per class" if multi else "softmax"),
        "scaling": "standardised by all of train (no labels needed), divided by sqrt(width)",
    }


def _score_as_mib(train: Labelled, test: Labelled, drawn: list[Tensor], c: float, seed: int) -> Scored:
    """Score with scikit-learn's solver and the tolerance at which MIB's code stops it, far from the optimum."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler

    if train.labels.ndim == 2:
        raise NotPossible("mib's classifier needs one class per sample")
    x, y, features = (part.cpu().numpy() for part in (train.features, train.labels, test.features))

    def score(rows: Tensor) -> Tensor:
        solver: Any = LogisticRegression(solver="saga", tol=0.1, C=c, random_state=seed)
        model = make_pipeline(MinMaxScaler(), solver)
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # it stops where the paper's does
            model.fit(x[rows.cpu().numpy()], y[rows.cpu().numpy()])
        predicted = torch.from_numpy(model.predict(features)).to(test.labels)
        return one_hot(predicted, max(count_classes(train.labels), count_classes(test.labels)))

    return map(score, drawn), {
        "classifier": "mib's: logistic regression, softmax, scikit-learn's saga to a tolerance of 0.1",
        "scaling": "each feature to 0 to 1 by the labelled samples of the draw",
    }


class FewLabels(FunctionProbe):
    """`fewlabel`, once for each number of shots in `evaluate.shots`."""

    function = fewlabel

    @classmethod
    def settings(cls, evaluate: Evaluate) -> list[dict[str, Any]]:
        return [{"shots": shots, "draws": evaluate.draws} for shots in sorted(evaluate.shots)]
