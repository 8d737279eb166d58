"""Classifiers of frozen features as in the papers' public code: layers, optimizer, milestones.

in   features and labels of train and test, a `Head`
out  accuracy, or mean average precision, on test

DIM: Hjelm et al., 2019, arXiv:1808.06670; AMDIM: Bachman et al., 2019, arXiv:1906.00910; CMC: Tian et al., 2020,
arXiv:1906.05849. If there are several learning rates, the one with the best score on held-out samples of train is
taken. Test is not used for the choice.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR

from mvssl.evaluation.features.labelled import Labelled, Standardiser, chunks, count_classes
from mvssl.evaluation.probes.fitting import hold_out, loss, minibatches, refuse_one_class, seeded
from mvssl.evaluation.results.metrics import Result, classifier_score, metric_of, score_classifier


class Head(NamedTuple):
    """The classifier of a paper and its schedule."""

    name: str
    epochs: int
    batch_size: int
    rates: tuple[float, ...]
    milestones: tuple[float, ...]  # shares of the number of steps
    factor: float  # of the learning rate at each milestone
    hidden: int | None = None  # units; None: linear
    dropout: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of the features, before the batch norm and the last layer
    betas: tuple[float, float] | None = None  # of Adam; None: SGD with momentum 0.9
    weight_decay: float = 0.0
    clip: float | None = None  # c * tanh(score / c)
    penalty: float = 0.0  # times the mean squared score, added to the loss
    initial_std: float | None = None  # of the initial weights, with biases of 0; None: the initialisation of torch

    def optimizer(self, model: nn.Module, rate: float) -> torch.optim.Optimizer:
        """Return the optimizer of the paper."""
        if self.betas is None:
            return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=self.weight_decay)
        return torch.optim.Adam(model.parameters(), lr=rate, betas=self.betas, weight_decay=self.weight_decay)


RATES = (1e-4, 1e-3)  # the MLP probe chooses one of them
MLPS = {
    "dim": Head(
        "dim", 150, 64, (1e-4,), (1 / 3, 2 / 3), 0.1, hidden=200, dropout=(0.0, 0.1, 0.0), betas=(0.5, 0.999)
    ),
    "amdim": Head(
        "amdim", 120, 480, (2e-4,), (80 / 120, 110 / 120), 0.2, hidden=1024, dropout=(0.2, 0.0, 0.2),
        betas=(0.8, 0.999), weight_decay=1e-5, clip=10.0, penalty=1e-3,
    ),
}  # fmt: skip
LINEARS = {
    "amdim": MLPS["amdim"]._replace(hidden=None, dropout=(0.0, 0.0, 0.0)),
    # 0.1 is for the paper's AlexNet, 30 for its ResNets v1 and v2
    "cmc": Head("cmc", 60, 256, (0.1, 30.0), (30 / 60, 40 / 60, 50 / 60), 0.2, initial_std=0.01),
}


def build_head(head: Head, width: int, kinds: int) -> nn.Sequential:
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


class HeadTraining(NamedTuple):
    """Trains a head on features, which `standardise` scales a batch at a time: a scaled copy may not fit in memory."""

    train: Labelled
    head: Head
    standardise: Callable[[Tensor], Tensor]
    epochs: int
    least_steps: int
    seed: int

    def fit(self, rate: float, part: Tensor | None = None) -> nn.Sequential:
        """Return the head in eval mode, trained on all samples or on the rows of `part`."""
        (features, labels), head, seed = self.train, self.head, self.seed
        batches = minibatches(
            len(labels if part is None else part), batch_size=head.batch_size, epochs=self.epochs,
            least_steps=self.least_steps, seed=seed, shrink=False,
        )  # fmt: skip
        with seeded(seed, features.device), torch.enable_grad():
            model = build_head(head, features.shape[1], count_classes(labels)).to(features.device)
            optimizer = head.optimizer(model, rate)
            steps = MultiStepLR(optimizer, [round(share * batches.steps) for share in head.milestones], head.factor)
            for rows in batches:
                rows = (rows if part is None else part[rows]).to(features.device)
                scores = model(self.standardise(features[rows]))
                clipped = scores if head.clip is None else head.clip * (scores / head.clip).tanh()
                value = loss(clipped, labels[rows]) + head.penalty * scores.square().mean()
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                steps.step()
        return model.eval()

    def scores(self, model: nn.Module, features: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return scores [n, c] of features [n, d], or of some rows of them, computed in chunks."""
        with torch.no_grad():
            return torch.cat([model(self.standardise(chunk)) for chunk in chunks(features, rows)])

    def choose_rate(self, rates: tuple[float, ...], share: float) -> dict[str, Any]:
        """Return the learning rate with the best score on a held-out `share` of train."""
        features, labels = self.train
        kept, held = hold_out(len(labels), share, self.seed)
        scores = [classifier_score(self.scores(self.fit(rate, kept), features, held), labels[held]) for rate in rates]
        best = max(range(len(rates)), key=scores.__getitem__)
        return {"learning_rate": rates[best], "held_out_score": scores[best], "held_out_samples": len(held)}


def classify(
    train: Labelled, test: Labelled, head: Head, *, epochs: int, least_steps: int,
    rates: tuple[float, ...] | None = None, standardised: bool = False, share: float = 0.2, seed: int = 0,
) -> Result:  # fmt: skip
    """Choose among several learning rates on a part of train, refit on all of it, score on test once.

    `rates=None` takes the paper's own. It trains for at least `least_steps` steps. `standardised`: by train; the papers
    take features as they are.
    """
    refuse_one_class(train.labels)
    standardise = Standardiser.of(train.features) if standardised else nn.Identity()
    training = HeadTraining(train, head, standardise, epochs, least_steps, seed)
    rates = rates or head.rates
    chosen: dict[str, Any] = {"learning_rate": rates[0]}
    how = "fixed beforehand"
    if len(rates) > 1:
        how = f"by {metric_of(train.labels).name} on {share:.0%} of train, then refitted on all of train"
        chosen = training.choose_rate(rates, share)
    scores = training.scores(training.fit(chosen["learning_rate"]), test.features)
    form = "linear" if head.hidden is None else f"{head.hidden} hidden units, batch norm, ReLU"
    optimizer = "SGD, momentum 0.9" if head.betas is None else f"Adam, betas {head.betas}"
    protocol = {
        "classifier": f"{head.name}'s: {form}, {'softmax' if train.labels.ndim == 1 else 'one sigmoid per class'}",
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
    return score_classifier(scores, test.labels, protocol, seed, chosen=chosen)


def mlp_probe(
    train: Labelled, test: Labelled, *, head: Literal["dim", "amdim"] = "dim",
    rates: tuple[float, ...] | None = RATES, epochs: int = 10, least_steps: int = 500,
    standardised: bool = True, share: float = 0.2, seed: int = 0,
) -> Result:  # fmt: skip
    """MLP probe: `classify` by a paper's network with one hidden layer, with our length, rates and scaling."""
    return classify(
        train, test, MLPS[head], rates=rates, epochs=epochs, least_steps=least_steps,
        standardised=standardised, share=share, seed=seed,
    )  # fmt: skip
