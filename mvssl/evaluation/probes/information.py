"""Information and dependence in nats, by critics that are trained for the purpose.

`information`, `input_information`: between two descriptions of the same samples, [n, d] and [n, e]: the features of two
views, or features and the input that they were made from. On test it gives the lower bounds InfoNCE, NWJ and MINE, each
by a critic that was trained on train with the same bound. MINE's critic is trained with a moving average and read by
Donsker and Varadhan's bound. SMILE is an estimate and no bound; its critic is trained with JSD.

A value below the truth may be the fault of the critic, a value above it is chance. InfoNCE cannot exceed the log of the
number of test samples. No estimate from n samples can safely claim much more than ln n nats (McAllester and Stratos,
AISTATS 2020, arXiv:1811.04251). Where continuous features are a function of their input, the truth is infinite: the
value says what a critic finds, not what there is.

`ndm`: the Neural Dependency Measure of features [n, d], a lower bound on their total correlation
KL(p(z) || p(z_1) ... p(z_d)), which is 0 where the dimensions are independent. A discriminator learns to tell z from z
with each dimension permuted over the samples. As in Deep InfoMax (Hjelm et al., 2019, arXiv:1808.06670, section 4.2) it
is trained by NWJ and read by Donsker and Varadhan's bound, but on samples that it was not trained on.

The bounds are those of `mvssl.objectives.estimators`, for one process and by anchor.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mvssl.evaluation.features.inputs import ByView
from mvssl.evaluation.features.labelled import Labelled, Standard, draw_rows
from mvssl.evaluation.probes.base import ByViewProbe, FunctionProbe
from mvssl.evaluation.probes.fitting import hold_out, minibatches, seeded, train_critic
from mvssl.evaluation.results.metrics import SAMPLES, Metric, NotPossible, Result
from mvssl.objectives.critics import Separable
from mvssl.objectives.estimators import MineByAnchor, dv_by_anchor, infonce_by_anchor, jsd, nwj
from mvssl.objectives.heads import perceptron

INFORMATION = Metric("information", "nats", low=-math.inf, high=math.inf)
DEPENDENCE = Metric("dependence", "nats", higher_is_better=False, low=-math.inf, high=math.inf)
CLIP = 5.0  # of SMILE's scores
UNITS = 256  # hidden units and outputs of the critic's two perceptrons
MOST_PAIRED = 2048  # samples of test, and of the held-out part of train: all pairs of them are scored at once
HIDDEN = (1000, 200)  # of the discriminator in Deep InfoMax's public code
MOST_PERMUTED = 10_000  # samples of test, and of the held-out part of train, for `ndm`
FEWEST = 16  # samples of train and of test

ByAnchor = Callable[[Tensor, Tensor], Tensor]


def information(
    train: ByView, test: ByView, *, steps: int = 1000, batch_size: int = 256, rate: float = 1e-3, seed: int = 0
) -> list[Result]:
    """`estimate_information` between the features of every two views."""
    if len(train.features) < 2:
        raise NotPossible("one view has nothing to share information with")
    options: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "rate": rate, "seed": seed}
    results = []
    for one, other in itertools.combinations(train.features, 2):
        pairs = [(split.features[one], split.features[other]) for split in (train, test)]
        results += estimate_information(*pairs, what=f"{one} and {other}", **options)
    return results


def input_information(
    train: ByView, test: ByView, *, steps: int = 1000, batch_size: int = 256, rate: float = 1e-3, seed: int = 0
) -> list[Result]:
    """`estimate_information` between the features of each view and the clean view itself; nothing for raw pixels."""
    options: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "rate": rate, "seed": seed}
    results = []
    for view in train.features:
        if not test.features[view].equal(test.inputs[view]):
            pairs = [(split.features[view], split.inputs[view]) for split in (train, test)]
            results += estimate_information(*pairs, what=f"{view} and its input", **options)
    return results


def estimate_information(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    what: str = "",
    steps: int = 1000,
    batch_size: int = 256,
    rate: float = 1e-3,
    seed: int = 0,
) -> Iterator[Result]:
    """Yield a result for each of ESTIMATORS; `train` and `test` are pairs [n, d] and [n, e]."""
    if min(len(train[0]), len(test[0])) < FEWEST:
        raise NotPossible(f"{len(train[0])} and {len(test[0])} samples of train and test are too few for a critic")
    standards = [Standard.of(x) for x in train]

    def standardised(rows: Tensor) -> Iterator[Tensor]:
        """Rows of both sides of train, standardised when they are read: all at once would be a copy of train."""
        return (standard(part[rows]) for standard, part in zip(standards, train, strict=True))

    (x, y), device = train, train[0].device
    read = torch.randperm(len(test[0]), generator=torch.Generator().manual_seed(seed))[:MOST_PAIRED]
    u, v = (standard(part[read]) for standard, part in zip(standards, test, strict=True))
    kept, held = (rows.to(device) for rows in hold_out(len(x), 0.2, seed))
    held_pair = tuple(standardised(held[:MOST_PAIRED]))
    batches = minibatches(len(kept), batch_size=batch_size, epochs=0, least_steps=steps, seed=seed)
    for name, (make_bound, choose_by, trained_by, read_by) in ESTIMATORS.items():
        bound = make_bound()
        with seeded(seed, device):
            critic = Separable(x.shape[1], y.shape[1], UNITS).to(device)

        def of_step(step: int, bound=bound, critic=critic) -> Tensor:
            return shares_of_pairs(bound, critic, *standardised(kept[batches[step].to(device)])).mean()

        def of_held_out(bound=choose_by, critic=critic) -> Tensor:
            return shares_of_pairs(bound, critic, *held_pair).mean()

        stopped_at = train_critic(critic, of_step, of_held_out, steps=steps, rate=rate)
        with torch.no_grad():
            parts = shares_of_pairs(read_by, critic, u, v).cpu()
        protocol = {
            "estimator": f"{name}{', no bound' * (name == 'smile')}",
            "trained_by": trained_by,
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
        yield _mean(parts, INFORMATION, protocol, ", ".join(filter(None, (what, name))), stopped_at)


def ndm(
    train: Labelled, test: Labelled, *, steps: int = 1000, batch_size: int = 1024, rate: float = 1e-4, seed: int = 0
) -> Result:
    """The measure on test by a discriminator that was trained on train; labels are not used."""
    if min(len(train.features), len(test.features)) < FEWEST:
        raise NotPossible("too few samples to train a discriminator on and to read it on")
    if train.features.shape[1] < 2:
        raise NotPossible("one dimension depends on no other")
    standard, z, device = Standard.of(train.features), train.features, train.features.device
    kept, held = (rows.to(device) for rows in hold_out(len(z), 0.2, seed))
    batches = minibatches(len(kept), batch_size=batch_size, epochs=0, least_steps=steps, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed, device):
        critic = Discriminator(z.shape[1]).to(device)
    held_out = standard(z[held[:MOST_PERMUTED]])
    mixed = permute_columns(held_out, generator)

    def of_step(step: int) -> Tensor:
        rows = standard(z[kept[batches[step].to(device)]])
        return nwj.by_anchor(critic(rows), critic(permute_columns(rows, generator))[:, None]).mean()

    def of_held_out() -> Tensor:
        # NWJ needs the right constant in the scores, and explodes without it; DV does not depend on it
        return dv_by_anchor(critic(held_out).double(), critic(mixed).double()[:, None]).mean()

    stopped_at = train_critic(critic, of_step, of_held_out, steps=steps, rate=rate)
    x = standard(test.features[draw_rows(len(test.features), MOST_PERMUTED, seed).to(device)])
    with torch.no_grad():
        parts = dv_by_anchor(critic(x).double(), critic(permute_columns(x, generator)).double()[:, None]).cpu()
    protocol = {
        "discriminator": f"perceptron, {' and '.join(map(str, HIDDEN))} hidden units, ReLU",
        "trained_by": "the KL f-divergence bound (NWJ)",
        "read_as": "Donsker-Varadhan",
        "optimizer": "Adam",
        "learning_rate": rate,
        "steps_at_most": steps,
        "batch_size": len(batches[0]),
        "scaling": "standardised by train",
        "chosen": "the step of the highest Donsker-Varadhan bound on 20% of train, never trained on; read on test",
        "samples_at_most": f"{MOST_PERMUTED} of what is held out of train, {MOST_PERMUTED} of test, drawn by the seed",
        "standard_error": "std over samples / sqrt(samples)",
    }
    return _mean(parts, DEPENDENCE, protocol, "", stopped_at)


def _mean(parts: Tensor, metric: Metric, protocol: dict[str, Any], what: str, stopped_at: int) -> Result:
    """The mean of the shares of n anchors, with its standard error."""
    error, chosen = parts.std().item() / math.sqrt(len(parts)), {"stopped_at_step": stopped_at}
    return Result(parts.mean().item(), metric, protocol, error, parts, SAMPLES, what, chosen, chance=0.0)


class Discriminator(nn.Module):
    """[n, d] -> scores [n], which start near 1: NWJ of such a critic is near 0."""

    def __init__(self, width: int):
        super().__init__()
        self.net = perceptron(width, *HIDDEN, 1)

    def forward(self, z: Tensor) -> Tensor:
        return 1 + self.net(z)[:, 0]


def permute_columns(z: Tensor, generator: torch.Generator) -> Tensor:
    """[n, d] with each column in an order of its own."""
    order = torch.rand(z.shape, generator=generator).argsort(dim=0)
    return z.gather(0, order.to(z.device))


def nwj_from_zero(positives: Tensor, negatives: Tensor) -> Tensor:
    """NWJ of the scores plus 1: 0 where all scores are 0."""
    return nwj.by_anchor(positives + 1, negatives + 1)


def smile_by_anchor(positives: Tensor, negatives: Tensor) -> Tensor:
    """SMILE: `dv_by_anchor` with the scores of the negatives clipped."""
    return dv_by_anchor(positives, negatives.clamp(-CLIP, CLIP))


class Reading(NamedTuple):
    """Which bounds an estimate uses; each gives [n] from the scores of positives [n] and of negatives [n, m]."""

    make_bound: Callable[[], ByAnchor]  # the bound to train a critic with
    choose_by: ByAnchor  # the bound that decides at which step the critic is kept
    trained_by: str  # its name in records
    read_by: ByAnchor  # the bound that is reported


ESTIMATORS = {
    "infonce": Reading(lambda: infonce_by_anchor, infonce_by_anchor, "infonce", infonce_by_anchor),
    "nwj": Reading(lambda: nwj_from_zero, nwj_from_zero, "nwj_from_zero", nwj_from_zero),
    "mine": Reading(MineByAnchor, dv_by_anchor, "dv, moving average of rate 0.01 in its gradient", dv_by_anchor),
    "smile": Reading(lambda: jsd.by_anchor, jsd.by_anchor, "jsd", smile_by_anchor),
}


def shares_of_pairs(bound: ByAnchor, critic: Separable, x: Tensor, y: Tensor) -> Tensor:
    """The share of each of n samples in a bound over all pairs of [n, d] and [n, e]: float64 [n]."""
    scores = critic(x, y[:, None])[:, :, 0].double()
    return bound(scores.diagonal(), off_diagonal(scores))


def off_diagonal(scores: Tensor) -> Tensor:
    """[n, n] -> [n, n - 1], each row without its entry on the diagonal."""
    n = len(scores)
    return scores.flatten()[1:].view(n - 1, n + 1)[:, :-1].reshape(n, n - 1)


class Information(ByViewProbe):
    """`information`."""

    function = information
    needs_labels = False


class InputInformation(ByViewProbe):
    """`input_information`."""

    function = input_information
    needs_labels = False
    needs_clean_views = True


class NDM(FunctionProbe):
    """`ndm`."""

    function = ndm
    needs_labels = False
