"""Classifiers of frozen features as in the papers' public code: layers, optimizer, milestones.

in   features and labels of train and test, a `Head`
out  accuracy, or mean average precision, on test

DIM: Hjelm et al., 2019, arXiv:1808.06670; AMDIM: Bachman et al., 2019, arXiv:1906.00910; CMC: Tian et al., 2020,
arXiv:1906.05849. Where there are several learning rates, the paper's or the caller's, the one with the best score on a
held-out part of train is taken. Test is not used for the choice.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR

from mvssl.evaluation.features.labelled import Labelled, Standard, chunks, count_classes
from mvssl.evaluation.probes.base import FunctionProbe
from mvssl.evaluation.probes.fitting import hold_out, loss, minibatches, refuse_one_class, seeded
from mvssl.evaluation.results.metrics import Result, classifier_score, metric_of, score_classifier


class Head(NamedTuple):
    """The classifier of a paper and its schedule; milestones are shares of the number of steps."""

    name: str
    hidden: int | None  # units; None: linear
    dropout: tuple[float, float, float]  # of the features, before the batch norm, before the last layer
    batch_size: int
    rates: tuple[float, ...]
    betas: tuple[float, float] | None  # of Adam; None: SGD with momentum 0.9
    weight_decay: float
    milestones: tuple[float, ...]
    factor: float
    clip: float | None  # c * tanh(score / c)
    penalty: float  # times the mean squared score, added to the loss
    epochs: int
    initial_std: float | None = None  # of the initial weights, with biases of 0; None: the initialisation of torch


NO_DROPOUT = (0.0, 0.0, 0.0)
RATES = (1e-4, 1e-3)  # the MLP probe chooses one of them
MLPS = {
    "dim": Head("dim", 200, (0.0, 0.1, 0.0), 64, (1e-4,), (0.5, 0.999), 0.0, (1 / 3, 2 / 3), 0.1, None, 0.0, 150),
    "amdim": Head(
        "amdim", 1024, (0.2, 0.0, 0.2), 480, (2e-4,), (0.8, 0.999), 1e-5, (80 / 120, 110 / 120), 0.2, 10.0, 1e-3, 120
    ),
}
LINEARS = {
    "amdim": MLPS["amdim"]._replace(hidden=None, dropout=NO_DROPOUT),
    # 0.1 is for the paper's AlexNet, 30 for its ResNets v1 and v2
    "cmc": Head(
        "cmc", None, NO_DROPOUT, 256, (0.1, 30.0), None, 0.0, (30 / 60, 40 / 60, 50 / 60), 0.2, None, 0.0, 60, 0.01
    ),
}


def build(head: Head, width: int, kinds: int) -> nn.Sequential:
    """Return the network from features [n, width] to scores [n, kinds]; dropout of 0 is left out."""
    first, middle, last = (nn.Dropout(p) if p else nn.Identity() for p in head.dropout)
    if head.hidden is None:
        model = nn.Sequential(first, nn.Linear(width, kinds))
    else:
        hidden = [nn.Linear(width, head.hidden), middle, nn.BatchNorm1d(head.hidden), nn.ReLU()]
        model = nn.Sequential(first, *hidden, last, nn.Linear(head.hidden, kinds))
    for layer in model if head.initial_std else ():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=head.initial_std or 0.0)
            nn.init.zeros_(layer.bias)
    return model


def fit(
    train: Labelled,
    head: Head,
    rate: float,
    *,
    kinds: int,
    epochs: int,
    least_steps: int,
    seed: int,
    part: Tensor | None = None,
    standard: Standard | None = None,
) -> nn.Sequential:
    """Return the head, trained on the features or on the rows of `part`, standardised by `standard`; in eval mode."""
    device, n = train.features.device, len(train.labels if part is None else part)
    batches = minibatches(
        n, batch_size=head.batch_size, epochs=epochs, least_steps=least_steps, seed=seed, shrink=False
    )
    with seeded(seed, device), torch.enable_grad():
        model = build(head, train.features.shape[1], kinds).to(device)
        optimizer = _optimizer(model, head, rate)
        steps = MultiStepLR(optimizer, [round(share * len(batches)) for share in head.milestones], head.factor)
        for rows in batches:
            rows = (rows if part is None else part[rows]).to(device)
            scores = model(_standardised(train.features[rows], standard))
            value = loss(_clipped(scores, head.clip), train.labels[rows]) + head.penalty * scores.square().mean()
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            steps.step()
    return model.eval()


def _optimizer(model: nn.Module, head: Head, rate: float) -> torch.optim.Optimizer:
    if head.betas is None:
        return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=head.weight_decay)
    return torch.optim.Adam(model.parameters(), lr=rate, betas=head.betas, weight_decay=head.weight_decay)


def _clipped(scores: Tensor, clip: float | None) -> Tensor:
    return scores if clip is None else clip * (scores / clip).tanh()


def _standardised(features: Tensor, standard: Standard | None) -> Tensor:
    return features if standard is None else standard(features)


def scores(model: nn.Module, features: Tensor, rows: Tensor | None = None, standard: Standard | None = None) -> Tensor:
    """Return scores [n, c] of features [n, d], or of some rows of them, computed in chunks."""
    with torch.no_grad():
        return torch.cat([model(_standardised(chunk, standard)) for chunk in chunks(features, rows)])


def select(
    train: Labelled,
    head: Head,
    rates: tuple[float, ...],
    *,
    share: float,
    seed: int,
    standard: Standard | None = None,
    **schedule: int,
) -> dict:
    """Return the learning rate with the best score on a held-out `share` of train."""
    kept, held = hold_out(len(train.labels), share, seed)
    models = [fit(train, head, rate, seed=seed, part=kept, standard=standard, **schedule) for rate in rates]
    held_out = [classifier_score(scores(model, train.features, held, standard), train.labels[held]) for model in models]
    best = max(range(len(rates)), key=held_out.__getitem__)
    return {"learning_rate": rates[best], "held_out_score": held_out[best], "held_out_samples": len(held)}


def classify(
    train: Labelled,
    test: Labelled,
    head: Head,
    *,
    epochs: int,
    least_steps: int,
    rates: tuple[float, ...] | None = None,
    standardised: bool = False,
    share: float = 0.2,
    seed: int = 0,
) -> Result:
    """Choose among several learning rates on a part of train, refit on all of it, score on test once.

    `rates=None` takes the paper's own. It trains for at least `least_steps` steps. `standardised`: by train; the papers
    take features as they are.
    """
    refuse_one_class(train.labels)
    kinds, multi = count_classes(train.labels), train.labels.ndim == 2
    standard = Standard.of(train.features) if standardised else None  # a copy of all of train may not fit
    schedule: dict[str, Any] = {"kinds": kinds, "epochs": epochs, "least_steps": least_steps}
    rates = rates or head.rates
    chosen: dict[str, Any] = {"learning_rate": rates[0]}
    how = "fixed beforehand"
    if len(rates) > 1:
        how = f"by {metric_of(train.labels).name} on {share:.0%} of train, then refitted on all of train"
        chosen = select(train, head, rates, share=share, seed=seed, standard=standard, **schedule)
    model = fit(train, head, chosen["learning_rate"], seed=seed, standard=standard, **schedule)
    form = "linear" if head.hidden is None else f"{head.hidden} hidden units, batch norm, ReLU"
    optimizer = "SGD, momentum 0.9" if head.betas is None else f"Adam, betas {head.betas}"
    protocol = {
        "classifier": f"{head.name}'s: {form}, {'one sigmoid per class' if multi else 'softmax'}",
        "dropout": list(head.dropout),
        "optimizer": f"{optimizer}, rate times {head.factor} at each milestone",
        "milestones": [round(share, 3) for share in head.milestones],
        "weight_decay": head.weight_decay,
        "score_clip": head.clip,
        "score_penalty": head.penalty,
        "epochs": epochs,
        "paper_epochs": head.epochs,
        "least_steps": least_steps,
        "batch_size": min(head.batch_size, len(train.labels)),
        "scaling": "standardised by train (the papers take features as they are)" if standardised else "none",
        "learning_rates": list(rates),
        "chosen": how,
    }
    return score_classifier(scores(model, test.features, standard=standard), test.labels, protocol, seed, chosen=chosen)


def mlp(
    train: Labelled,
    test: Labelled,
    *,
    head: Literal["dim", "amdim"] = "dim",
    rates: tuple[float, ...] | None = RATES,
    epochs: int = 10,
    least_steps: int = 500,
    standardised: bool = True,
    share: float = 0.2,
    seed: int = 0,
) -> Result:
    """MLP probe: `classify` by a paper's network with one hidden layer, with our length, rates and scaling."""
    return classify(
        train, test, MLPS[head], rates=rates, epochs=epochs, least_steps=least_steps,
        standardised=standardised, share=share, seed=seed,
    )  # fmt: skip


class MLP(FunctionProbe):
    """`mlp`."""

    function = mlp
