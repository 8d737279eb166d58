"""Linear probe: a linear classifier on frozen features, its settings chosen on held-out samples of train.

in   features and labels of train and test
out  accuracy, or mean average precision, on test of a classifier refitted on all of train

All pairs of learning rate and weight decay are trained at once. Their weights are side by side in one matrix, so a step
is two matrix products for any number of pairs. No function that chooses takes the test set.
`view_ablation` measures with the same classifier what is lost when a view is missing at test.
"""

import itertools
import math
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from mvssl.evaluation.features.inputs import ByView
from mvssl.evaluation.features.labelled import Labelled, Standardiser, chunks, count_classes, one_hot
from mvssl.evaluation.probes.classifiers import LINEARS, classify
from mvssl.evaluation.probes.fitting import hold_out, minibatches, refuse_one_class, rows_per_step
from mvssl.evaluation.results.metrics import NotPossible, Result, classifier_score, metric_of, score_classifier

RATES = (1e-4, 1e-3, 1e-2)  # of Adam
DECAYS = (0.0, 1e-3, 1e-2, 1e-1)  # times |w|^2 / 2, added to the mean cross-entropy
PAIRS = list(itertools.product(RATES, DECAYS))


class Linear(NamedTuple):
    """k classifiers side by side: weight [k, c, d], bias [k, c], on features that `standard` standardises."""

    standard: Standardiser
    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return scores [n, k, c] of features [n, d], or of some rows of them."""
        return torch.cat([self.scores(self.standard(chunk)) for chunk in chunks(features, rows)])

    def only(self, number: int) -> "Linear":
        """Return one of the classifiers, as k = 1."""
        return Linear(self.standard, self.weight[number : number + 1], self.bias[number : number + 1])

    def scores(self, x: Tensor) -> Tensor:
        """Return scores [n, k, c] of standardised features [n, d]."""
        return F.linear(x, self.weight.flatten(0, 1), self.bias.flatten()).unflatten(1, self.bias.shape)


def fit_linear(
    train: Labelled, pairs: list[tuple[float, float]], *, width: int, epochs: int, batch_size: int, least_steps: int,
    seed: int, part: Tensor | None = None,
) -> Linear:  # fmt: skip
    """Train one classifier of `width` classes per pair of learning rate and weight decay, by Adam with cosine decay.

    On all of train, or on the rows of `part`, which are never copied all at once: a copy may not fit into memory.
    """
    features, labels = train
    n, k, multi = len(labels if part is None else part), len(pairs), labels.ndim == 2
    new = features.new_zeros
    model = Linear(Standardiser.of(features, part), new(k, width, features.shape[1]), new(k, width))
    gradient = Linear(model.standard, torch.zeros_like(model.weight), torch.zeros_like(model.bias))
    adam = _adam(model, gradient, pairs)
    batches = minibatches(n, batch_size=batch_size, epochs=epochs, least_steps=least_steps, seed=seed)
    cosine = LambdaLR(adam, lambda step: (1 + math.cos(math.pi * step / batches.steps)) / 2)
    for rows in batches:
        rows = (rows if part is None else part[rows]).to(features.device)
        x = model.standard(features[rows])
        scores = model.scores(x)
        p = scores.sigmoid() if multi else scores.softmax(dim=2)
        error = (p - one_hot(labels[rows], width)[:, None]) / len(rows)  # d loss / d scores, [b, k, c]
        torch.mm(error.flatten(1).T, x, out=gradient.weight.flatten(0, 1))
        torch.sum(error, dim=0, out=gradient.bias)
        adam.step()
        cosine.step()
    return model


def _adam(model: Linear, gradient: Linear, pairs: list[tuple[float, float]]) -> torch.optim.Adam:
    """Return Adam with a learning rate and a weight decay for every pair; it reads the tensors of `gradient`.

    It is fused, and the gradients keep their memory: the weights are large, and passes over them cost most of the time.
    """
    groups = []
    for number, (rate, decay) in enumerate(pairs):
        weight, bias = model.weight[number], model.bias[number]
        weight.grad, bias.grad = gradient.weight[number], gradient.bias[number]
        groups.append({"params": [weight], "lr": rate, "weight_decay": decay})
        groups.append({"params": [bias], "lr": rate})
    return torch.optim.Adam(groups, fused=True)


def choose_settings(train: Labelled, *, share: float = 0.2, seed: int = 0, **schedule: Any) -> dict[str, Any]:
    """Return the pair of learning rate and weight decay with the best score on a held-out `share` of train."""
    kept, held = hold_out(len(train.labels), share, seed)
    model = fit_linear(train, PAIRS, width=count_classes(train.labels), seed=seed, part=kept, **schedule)
    labels = train.labels[held]
    # one after the other: the scores of all at once are gigabytes if samples and classes are many
    scores = [classifier_score(model.only(k)(train.features, held)[:, 0], labels) for k in range(len(PAIRS))]
    return {**best_pair(scores), "held_out_samples": len(held)}


def best_pair(scores: list[float]) -> dict[str, Any]:
    """Return the one of PAIRS with the highest held-out score, the first of equals."""
    best = max(range(len(scores)), key=scores.__getitem__)
    rate, decay = PAIRS[best]
    return {"learning_rate": rate, "weight_decay": decay, "held_out_score": scores[best]}


def choose_and_fit(train: Labelled, *, share: float, seed: int, **schedule: Any) -> tuple[Linear, dict[str, Any]]:
    """Return the classifier refitted on all of train, and the chosen settings."""
    chosen = choose_settings(train, share=share, seed=seed, **schedule)
    pair = chosen["learning_rate"], chosen["weight_decay"]
    return fit_linear(train, [pair], width=count_classes(train.labels), seed=seed, **schedule), chosen


def linear(
    train: Labelled, test: Labelled, *, head: Literal["amdim", "cmc"] | None = None, epochs: int = 20,
    batch_size: int = 512, least_steps: int = 500, share: float = 0.2, seed: int = 0,
) -> Result:  # fmt: skip
    """Choose the settings on a part of train, fit again on all of train, and score once on test.

    It trains for `epochs` passes over train and at least `least_steps` steps of at most `batch_size` samples. With
    `head` it trains a paper's own classifier with the paper's batches and learning rates. Features are not scaled.
    """
    refuse_one_class(train.labels)
    if head is not None:
        return classify(train, test, LINEARS[head], epochs=epochs, least_steps=least_steps, share=share, seed=seed)
    schedule: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "least_steps": least_steps}
    model, chosen = choose_and_fit(train, share=share, seed=seed, **schedule)
    protocol = {
        "classifier": "linear, " + ("softmax" if train.labels.ndim == 1 else "one sigmoid per class"),
        "optimizer": "Adam, cosine decay to 0",
        **schedule,
        "batch_size": rows_per_step(len(train.labels), batch_size),
        "learning_rates": list(RATES),
        "weight_decays": list(DECAYS),
        "scaling": "standardised by train",
        "chosen": f"by {metric_of(train.labels).name} on {share:.0%} of train, then refitted on all of train",
    }
    return score_classifier(model(test.features)[:, 0], test.labels, protocol, seed, chosen=chosen)


def view_ablation(
    train: ByView, test: ByView, *, epochs: int = 20, batch_size: int = 512, least_steps: int = 500,
    share: float = 0.2, seed: int = 0,
) -> list[Result]:  # fmt: skip
    """Score with all views (`all`), without each view (`without VIEW`), and with each view alone (`only VIEW`).

    One linear classifier is trained on all views side by side, as `linear` is on the view `all`. If a view is missing,
    its features are set to their mean over train. This is 0 after standardising. The
    classifier was not trained with missing views.
    """
    if len(train.features) < 2:
        raise NotPossible("there is one view, and without it nothing is left")
    refuse_one_class(train.labels)
    schedule: dict[str, Any] = {"epochs": epochs, "batch_size": batch_size, "least_steps": least_steps}
    standards = {view: Standardiser.of(x) for view, x in train.features.items()}
    tested = {view: standards[view](x) for view, x in test.features.items()}
    widths = [x.shape[1] for x in train.features.values()]
    first = next(iter(train.features.values()))
    joined = Labelled(first.new_empty(len(first), sum(widths)), train.labels)
    for view, place in zip(train.features, joined.features.split(widths, 1), strict=True):  # one copy of train, not two
        place.copy_(standards[view](train.features[view]))
    model, chosen = choose_and_fit(joined, share=share, seed=seed, **schedule)
    protocol = {
        "classifier": "linear on all views side by side, as the linear probe's",
        **schedule,
        "scaling": "each view standardised by train",
        "missing": "features of the missing view are their mean over train (0 once standardised)",
        "chosen": f"by {metric_of(train.labels).name} of all views on {share:.0%} of train, then refitted on all of it",
    }
    results = []
    for missing in (None, *tested):
        kept = [torch.zeros_like(x) if view == missing else x for view, x in tested.items()]
        scores, what = model(torch.cat(kept, 1))[:, 0], "all" if missing is None else f"without {missing}"
        results.append(score_classifier(scores, test.labels, protocol, seed, what=what, chosen=chosen))
    for view in tested:
        alone = (Labelled(split.features[view], split.labels) for split in (train, test))
        results.append(linear(*alone, share=share, seed=seed, **schedule)._replace(what=f"only {view}"))
    return results
