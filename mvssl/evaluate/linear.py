"""Linear probe: the best linear classifier on frozen features, its settings chosen on a part of train.

in   features and labels of train and test
out  accuracy, or mean average precision, on test of a classifier refitted on all of train

Every pair of learning rate and weight decay is trained at once: the weights stand side by side in one matrix, so a step
is two matrix products however many candidates there are. The test set is not an argument of anything that chooses.
"""

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from mvssl.evaluate.features import Labelled, Standard, classes, one_hot
from mvssl.evaluate.metrics import Result, judge, metric_of, score

RATES = (1e-4, 1e-3, 1e-2)  # of Adam
DECAYS = (0.0, 1e-3, 1e-2, 1e-1)  # times |w|^2 / 2, added to the mean cross-entropy


class Linear(NamedTuple):
    """k classifiers side by side: weight [d, k, c], bias [k, c], on features that `standard` standardises."""

    standard: Standard
    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """[n, d] -> scores [n, k, c]."""
        rows = [self.standard(chunk) @ self.weight.flatten(1) for chunk in features.split(4096)]
        return torch.cat(rows).unflatten(1, self.bias.shape) + self.bias


def fit(
    train: Labelled,
    pairs: list[tuple[float, float]],
    *,
    width: int,
    epochs: int,
    batch_size: int,
    least_steps: int,
    seed: int,
) -> Linear:
    """Train one classifier of `width` classes per pair of learning rate and weight decay, by Adam with cosine decay."""
    features, labels = train
    n, k, multi = len(labels), len(pairs), labels.ndim == 2
    model = Linear(
        Standard.of(features),
        features.new_zeros(features.shape[1], k, width),
        features.new_zeros(k, width),
    )
    slopes = [(torch.zeros_like(p), torch.zeros_like(p)) for p in (model.weight, model.bias)]
    rate, decay = features.new_tensor(pairs).T[:, :, None]  # [k, 1] each
    batch_size = rows_per_step(n, batch_size)
    steps = max(least_steps, epochs * (n // batch_size))
    generator = torch.Generator().manual_seed(seed)
    order, at = torch.randperm(n, generator=generator), 0
    for step in range(steps):
        if at + batch_size > n:
            order, at = torch.randperm(n, generator=generator), 0
        rows, at = order[at : at + batch_size].to(features.device), at + batch_size
        x = model.standard(features[rows])
        scores = (x @ model.weight.flatten(1)).unflatten(1, (k, width)) + model.bias
        p = scores.sigmoid() if multi else scores.softmax(dim=2)
        error = (p - one_hot(labels[rows], width)[:, None]) / len(rows)  # d loss / d scores, [b, k, c]
        slope = (x.T @ error.flatten(1)).unflatten(1, (k, width))
        slope += decay * model.weight
        rate_now = rate * (1 + math.cos(math.pi * step / steps)) / 2
        _adam(model.weight, slope, *slopes[0], rate_now, step)
        _adam(model.bias, error.sum(0), *slopes[1], rate_now, step)
    return model


def rows_per_step(n: int, batch_size: int) -> int:
    """Samples per step: a tenth of a small set, so that 500 steps do not become hundreds of epochs."""
    return min(batch_size, max(n // 10, 64), n)


def _adam(p: Tensor, slope: Tensor, mean: Tensor, square: Tensor, rate: Tensor, step: int) -> None:
    mean.lerp_(slope, 0.1)
    square.lerp_(slope**2, 0.001)
    root = (square / (1 - 0.999 ** (step + 1))).sqrt_().add_(1e-8)
    p.sub_(rate * mean.div(root).div_(1 - 0.9 ** (step + 1)))


def select(train: Labelled, *, share: float = 0.2, seed: int = 0, **schedule: int) -> dict:
    """The pair of learning rate and weight decay that does best on a held-out `share` of train, and its score there."""
    order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(seed))
    held = order[: max(1, round(share * len(order)))]
    kept = order[len(held) :]
    pairs = list(itertools.product(RATES, DECAYS))
    part = Labelled(train.features[kept], train.labels[kept])
    model = fit(part, pairs, width=classes(train.labels), seed=seed, **schedule)
    scores = model(train.features[held])
    found = [score(scores[:, candidate], train.labels[held]) for candidate in range(len(pairs))]
    best = max(range(len(found)), key=found.__getitem__)
    return {
        "learning_rate": pairs[best][0],
        "weight_decay": pairs[best][1],
        "held_out_score": found[best],
        "held_out_samples": len(held),
    }


def linear(
    train: Labelled,
    test: Labelled,
    *,
    epochs: int = 20,
    batch_size: int = 512,
    least_steps: int = 500,
    share: float = 0.2,
    seed: int = 0,
) -> Result:
    """Choose on a part of train, refit on all of train, score on test once.

    At most `batch_size` samples per step; at least `least_steps` steps, and `epochs` passes over train.
    """
    schedule = {"epochs": epochs, "batch_size": batch_size, "least_steps": least_steps}
    chosen = select(train, share=share, seed=seed, **schedule)
    pair = chosen["learning_rate"], chosen["weight_decay"]
    model = fit(train, [pair], width=classes(train.labels), seed=seed, **schedule)
    protocol = {
        "classifier": "linear, " + ("softmax" if train.labels.ndim == 1 else "one sigmoid per class"),
        "optimizer": "Adam, cosine decay to 0",
        **schedule,
        "batch_size": rows_per_step(len(train.labels), batch_size),
        "learning_rates": list(RATES),
        "weight_decays": list(DECAYS),
        "scaling": "standardised by train",
        "chosen": f"by {metric_of(train.labels)} on {share:.0%} of train, then refitted on all of train",
        **chosen,
    }
    return judge(model(test.features)[:, 0], test.labels, protocol, seed)
