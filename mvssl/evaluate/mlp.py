"""MLP probe: a classifier with one hidden layer on frozen features, as Deep InfoMax and AMDIM measured theirs.

in   features and labels of train and test
out  accuracy, or mean average precision, on test

The heads, optimizers and the places of their milestones are the papers' public code's (Hjelm et al., 2019,
arXiv:1808.06670; Bachman et al., 2019, arXiv:1906.00910). The number of epochs is ours, and so is the learning rate
where it is chosen: it then is the one that does best on a part of train. Test takes no part in it.
"""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR

from mvssl.evaluate.features import Labelled, Standard, classes
from mvssl.evaluate.fitting import hold_out, loss, minibatches, rows_per_step, seeded
from mvssl.evaluate.metrics import Result, judge, metric_of, score

RATES = (1e-4, 1e-3)  # to choose from


class Head(NamedTuple):
    """A paper's classifier and its schedule, whose milestones are shares of its length."""

    hidden: int
    dropout: tuple[float, float, float]  # of the features, before the batch norm, before the last layer
    batch_size: int
    rate: float
    betas: tuple[float, float]
    weight_decay: float
    milestones: tuple[float, float]
    factor: float
    clip: float | None  # c * tanh(score / c)
    penalty: float  # times the mean squared score, added to the loss
    epochs: int  # of the paper's code


HEADS = {
    "dim": Head(200, (0.0, 0.1, 0.0), 64, 1e-4, (0.9, 0.999), 0.0, (1 / 3, 2 / 3), 0.1, None, 0.0, 150),
    "amdim": Head(1024, (0.2, 0.0, 0.2), 480, 2e-4, (0.8, 0.999), 1e-5, (80 / 120, 110 / 120), 0.2, 10.0, 1e-3, 120),
}


def build(head: Head, width: int, kinds: int) -> nn.Sequential:
    """Features [n, width] -> scores [n, kinds]; dropout of 0 is left out."""
    first, middle, last = (nn.Dropout(p) if p else nn.Identity() for p in head.dropout)
    return nn.Sequential(
        first,
        nn.Linear(width, head.hidden),
        middle,
        nn.BatchNorm1d(head.hidden),
        nn.ReLU(),
        last,
        nn.Linear(head.hidden, kinds),
    )


def fit(
    train: Labelled, head: Head, rate: float, *, kinds: int, epochs: int, least_steps: int, seed: int
) -> nn.Sequential:
    """The head trained on standardised features, in eval mode."""
    device = train.features.device
    batches = minibatches(
        len(train.labels), batch_size=head.batch_size, epochs=epochs, least_steps=least_steps, seed=seed
    )
    with seeded(seed, device), torch.enable_grad():
        model = build(head, train.features.shape[1], kinds).to(device)
        adam = torch.optim.Adam(model.parameters(), lr=rate, betas=head.betas, weight_decay=head.weight_decay)
        steps = MultiStepLR(adam, [round(share * len(batches)) for share in head.milestones], head.factor)
        for rows in batches:
            rows = rows.to(device)
            scores = model(train.features[rows])
            value = loss(_clipped(scores, head.clip), train.labels[rows]) + head.penalty * scores.square().mean()
            adam.zero_grad()
            value.backward()
            adam.step()
            steps.step()
    return model.eval()


def _clipped(scores: Tensor, clip: float | None) -> Tensor:
    return scores if clip is None else clip * (scores / clip).tanh()


def scores(model: nn.Module, features: Tensor) -> Tensor:
    """[n, d] -> [n, c], in chunks."""
    with torch.no_grad():
        return torch.cat([model(chunk) for chunk in features.split(4096)])


def select(train: Labelled, head: Head, rates: tuple[float, ...], *, share: float, seed: int, **schedule: int) -> dict:
    """The learning rate that does best on a held-out `share` of train, and its score there."""
    kept, held = hold_out(len(train.labels), share, seed)
    part = Labelled(train.features[kept], train.labels[kept])
    models = [fit(part, head, rate, seed=seed, **schedule) for rate in rates]
    found = [score(scores(model, train.features[held]), train.labels[held]) for model in models]
    best = max(range(len(found)), key=found.__getitem__)
    return {"learning_rate": rates[best], "held_out_score": found[best], "held_out_samples": len(held)}


def mlp(
    train: Labelled,
    test: Labelled,
    *,
    head: Literal["dim", "amdim"] = "dim",
    rates: tuple[float, ...] | None = RATES,
    epochs: int = 10,
    least_steps: int = 500,
    share: float = 0.2,
    seed: int = 0,
) -> Result:
    """Choose the learning rate on a part of train, refit on all of it, score on test once.

    `rates=None` is the paper's own rate, and then nothing is chosen. At least `least_steps` steps.
    """
    form, kinds = HEADS[head], classes(train.labels)
    standard = Standard.of(train.features)
    fitted = Labelled(standard(train.features), train.labels)
    schedule = {"kinds": kinds, "epochs": epochs, "least_steps": least_steps}
    rates = rates or (form.rate,)
    chosen: dict[str, Any] = {"learning_rate": rates[0]}
    how = "fixed beforehand"
    if len(rates) > 1:
        how = f"by {metric_of(train.labels).name} on {share:.0%} of train, then refitted on all of train"
        chosen = select(fitted, form, rates, share=share, seed=seed, **schedule)
    model = fit(fitted, form, chosen["learning_rate"], seed=seed, **schedule)
    protocol = {
        "classifier": f"{head}'s: {form.hidden} hidden units, batch norm, ReLU, "
        + ("softmax" if train.labels.ndim == 1 else "one sigmoid per class"),
        "dropout": list(form.dropout),
        "optimizer": f"Adam, betas {form.betas}, rate times {form.factor} twice",
        "milestones": [round(share, 3) for share in form.milestones],
        "weight_decay": form.weight_decay,
        "score_clip": form.clip,
        "score_penalty": form.penalty,
        "epochs": epochs,
        "paper_epochs": form.epochs,
        "least_steps": least_steps,
        "batch_size": rows_per_step(len(train.labels), form.batch_size),
        "scaling": "standardised by train (the papers take features as they are)",
        "learning_rates": list(rates),
        "chosen": how,
    }
    return judge(scores(model, standard(test.features)), test.labels, protocol, seed, chosen=chosen)
