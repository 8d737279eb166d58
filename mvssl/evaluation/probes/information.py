"""Information between two descriptions of the same samples, in nats, by critics trained for the purpose.

in   [n, d] and [n, e] of train and of test: features of two views, or features and the input that they were made of
out  on test the lower bounds InfoNCE, NWJ and MINE, each of a critic of its own that was trained on train by the same
     bound (MINE's by its moving average, and read by Donsker and Varadhan's), and SMILE, an estimate that is no bound,
     of a critic trained by JSD (see `mvssl.objectives.estimators`)

A value below the truth may be the critic's fault, one above it only chance. InfoNCE cannot exceed the log of the number
of test samples, and nothing that is estimated from n samples can safely claim much more than ln n nats (McAllester and
Stratos, AISTATS 2020, arXiv:1811.04251). Of continuous features that are a function of their input the truth is
infinite: that value says what a critic finds, not what there is.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from mvssl.evaluation.features.input_types import ByView
from mvssl.evaluation.features.labelled import Standard
from mvssl.evaluation.probes.fitting import hold_out, minibatches, seeded
from mvssl.evaluation.probes.variational import MovingDV, dv, infonce, jsd, nwj, off_diagonal, train_critic
from mvssl.evaluation.results.metrics import SAMPLES, Metric, NotPossible, Result
from mvssl.objectives.critics import Separable

NATS = Metric("information", "nats", low=-math.inf, high=math.inf)
CLIP = 5.0  # of SMILE's scores
UNITS = 256  # of the critic, which is an inner product of two perceptrons with one hidden layer
MOST = 2048  # samples of test, and of what is held out of train: their square is scored at once


def information(train: ByView, test: ByView, **options: Any) -> list[Result]:
    """`bounds` between the features of every two views."""
    if len(train.features) < 2:
        raise NotPossible("one view has nothing to share information with")
    results = []
    for one, other in itertools.combinations(train.features, 2):
        pairs = [(split.features[one], split.features[other]) for split in (train, test)]
        results += bounds(*pairs, what=f"{one} and {other}", **options)
    return results


def input_information(train: ByView, test: ByView, **options: Any) -> list[Result]:
    """`bounds` between the features of each view and the view itself."""
    results = []
    for view in train.features:
        if test.features[view].equal(test.inputs[view]):
            continue  # pixels tell all of themselves
        pairs = [(split.features[view], split.inputs[view]) for split in (train, test)]
        results += bounds(*pairs, what=f"{view} and its input", **options)
    return results


def bounds(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    what: str = "",
    steps: int = 1000,
    batch_size: int = 256,
    rate: float = 1e-3,
    seed: int = 0,
) -> Iterator[Result]:
    """One result for each of ESTIMATORS."""
    if min(len(train[0]), len(test[0])) < 16:
        raise NotPossible(f"{len(train[0])} and {len(test[0])} samples of train and test are too few for a critic")
    standards = [Standard.of(x) for x in train]

    def seen(rows: Tensor) -> Iterator[Tensor]:
        """Rows of both sides of train, standardised when they are read: all at once would be a copy of train."""
        return (standard(part[rows]) for standard, part in zip(standards, train, strict=True))

    (x, y), device = train, train[0].device
    some = torch.randperm(len(test[0]), generator=torch.Generator().manual_seed(seed))[:MOST]
    u, v = (standard(part[some]) for standard, part in zip(standards, test, strict=True))
    kept, held = (rows.to(device) for rows in hold_out(len(x), 0.2, seed))
    chosen_by = tuple(seen(held[:MOST]))
    batches = minibatches(len(kept), batch_size=batch_size, epochs=0, least_steps=steps, seed=seed)
    for name, (made, kept_by, read) in ESTIMATORS.items():
        trained = made()
        with seeded(seed, device):
            critic = Separable(x.shape[1], y.shape[1], UNITS).to(device)

        def drawn(step: int, bound=trained, critic=critic) -> Tensor:
            return parts_of(bound, critic, *seen(kept[batches[step].to(device)])).mean()

        def on_held(bound=kept_by, critic=critic) -> Tensor:
            return parts_of(bound, critic, *chosen_by).mean()

        at = train_critic(critic, drawn, on_held, steps=steps, rate=rate)
        with torch.no_grad():
            parts = parts_of(read, critic, u, v).cpu()
        protocol = {
            "estimator": f"{name}{', no bound' * (name == 'smile')}",
            "trained_by": f"{kept_by.__name__}{', moving average of rate 0.01 in its gradient' * (name == 'mine')}",
            "critic": f"inner product of two perceptrons, {UNITS} hidden units and as many out",
            "pairs": "every two samples of a batch",
            "optimizer": "Adam",
            "learning_rate": rate,
            "steps_at_most": steps,
            "batch_size": len(batches[0]),
            "candidates": len(u),
            "ceiling": math.log(len(u)) if name == "infonce" else None,
            "scaling": "standardised by train",
            "chosen": "the step of the highest bound on 20% of train, never trained on; read on test",
            "standard_error": "std over the rows of test / sqrt(rows)",
        }
        error = parts.std().item() / math.sqrt(len(parts))
        told = ", ".join(filter(None, (what, name)))
        yield Result(
            parts.mean().item(), NATS, protocol, error, parts, SAMPLES, told, {"stopped_at_step": at}, chance=0.0
        )


def smile(together: Tensor, apart: Tensor) -> Tensor:
    """Donsker and Varadhan's value with clipped scores against others, to first order: [n] and [n, m] -> [n]."""
    return dv(together, apart.clamp(-CLIP, CLIP))


def nwj_from_zero(together: Tensor, apart: Tensor) -> Tensor:
    """NWJ of the scores plus 1: 0 for a critic that says nothing."""
    return nwj(together + 1, apart + 1)


ESTIMATORS = {  # what makes the bound that a critic is trained by; by what its step is chosen; by what it is read
    "infonce": (lambda: infonce, infonce, infonce),
    "nwj": (lambda: nwj_from_zero, nwj_from_zero, nwj_from_zero),
    "mine": (MovingDV, dv, dv),
    "smile": (lambda: jsd, jsd, smile),
}


def parts_of(bound: Callable[[Tensor, Tensor], Tensor], critic: Separable, x: Tensor, y: Tensor) -> Tensor:
    """What each of n samples adds to a bound over all pairs of [n, d] and [n, e]; float64 [n], whose mean it is."""
    scores = critic(x, y[:, None])[:, :, 0].double()
    return bound(scores.diagonal(), off_diagonal(scores))
