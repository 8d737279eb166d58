"""Information and dependence in nats, by critics that are trained on the features.

`information` and `input_information` measure what two descriptions of the same samples share, [n, d] and [n, e]: the
features of two views, or the features of a view and its input. The results are lower bounds on test: InfoNCE, NWJ and
MINE, each by a critic that was trained on train with the same bound. MINE trains with a moving average, and is read by
the bound of Donsker and Varadhan. SMILE is an estimate and no bound; its critic is trained with JSD.

A value below the truth may come from a weak critic, a value above it comes from chance. InfoNCE cannot exceed the log
of the number of test samples. No estimate from n samples can safely claim much more than ln n nats (McAllester and
Stratos, AISTATS 2020, arXiv:1811.04251). If continuous features are a function of their input, the true information is
infinite: the value shows how much the critic can use.

`ndm`: the Neural Dependency Measure of features [n, d], a lower bound on their total correlation
KL(p(z) || p(z_1) ... p(z_d)), which is 0 if the dimensions are independent. A discriminator learns to separate z from z
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
from mvssl.evaluation.features.labelled import Labelled, Standardiser, draw_rows
from mvssl.evaluation.probes.fitting import hold_out, minibatches, seeded, train_critic
from mvssl.evaluation.results.metrics import Metric, NotPossible, Result, mean_over_samples
from mvssl.objectives.estimators import MineByAnchor, dv_by_anchor, infonce_by_anchor, jsd, nwj
from mvssl.objectives.scoring.critics import Separable
from mvssl.objectives.scoring.heads import perceptron

INFORMATION = Metric("information", "nats", low=-math.inf, high=math.inf)
DEPENDENCE = Metric("dependence", "nats", higher_is_better=False, low=-math.inf, high=math.inf)
CLIP = 5.0  # of SMILE's scores
UNITS = 256  # hidden units and outputs of the critic's two perceptrons
MOST_PAIRED = 2048  # samples of test, and of the held-out part of train: all pairs of them are scored at once
HIDDEN = (1000, 200)  # of the discriminator in Deep InfoMax's public code
MOST_PERMUTED = 10_000  # samples of test, and of the held-out part of train, for `ndm`
FEWEST = 16  # samples of train and of test

ByAnchor = Callable[[Tensor, Tensor], Tensor]


class Estimate(NamedTuple):
    """The bounds of an estimate; each gives [n] from the scores of positives [n] and of negatives [n, m]."""

    make_bound: Callable[[], ByAnchor]  # the bound to train a critic with
    chosen_by: ByAnchor  # the bound that decides at which step the critic is kept
    trained_by: str  # the name of the bound in records
    read_by: ByAnchor  # the bound that is reported


def nwj_zero_at_zero_scores(positives: Tensor, negatives: Tensor) -> Tensor:
    """Return NWJ of the scores plus 1: it is 0 if all scores are 0."""
    return nwj.by_anchor(positives + 1, negatives + 1)


def smile_by_anchor(positives: Tensor, negatives: Tensor) -> Tensor:
    """Return SMILE: `dv_by_anchor` with the scores of the negatives clipped."""
    return dv_by_anchor(positives, negatives.clamp(-CLIP, CLIP))


ESTIMATES = {
    "infonce": Estimate(lambda: infonce_by_anchor, infonce_by_anchor, "infonce", infonce_by_anchor),
    "nwj": Estimate(lambda: nwj_zero_at_zero_scores, nwj_zero_at_zero_scores, "nwj_from_zero", nwj_zero_at_zero_scores),
    "mine": Estimate(MineByAnchor, dv_by_anchor, "dv, moving average of rate 0.01 in its gradient", dv_by_anchor),
    "smile": Estimate(lambda: jsd.by_anchor, jsd.by_anchor, "jsd", smile_by_anchor),
}


class CriticSamples:
    """What a critic is trained on and read on: one or several features [n, d] of the same samples of train and of test.

    They are standardised by train when they are read: a standardised copy of all of train may not fit in memory.
    """

    def __init__(
        self, train: tuple[Tensor, ...], test: tuple[Tensor, ...], *, most: int, read: Tensor, steps: int,
        batch_size: int, seed: int,
    ):  # fmt: skip
        """`read`: rows of test. `most`: most held-out samples of train."""
        if min(len(train[0]), len(test[0])) < FEWEST:
            raise NotPossible(f"{len(train[0])} and {len(test[0])} samples of train and test are too few for a critic")
        self.train, self.device, self.standards = train, train[0].device, [Standardiser.of(x) for x in train]
        self.kept, held = (rows.to(self.device) for rows in hold_out(len(train[0]), 0.2, seed))
        self.held_out = self._standardised(train, held[:most])
        self.test = self._standardised(test, read.to(self.device))
        self.batches = minibatches(len(self.kept), batch_size=batch_size, epochs=0, least_steps=steps, seed=seed)

    def batch(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return the features of a batch; `rows` are an item of `batches`."""
        return self._standardised(self.train, self.kept[rows.to(self.device)])

    def _standardised(self, features: tuple[Tensor, ...], rows: Tensor) -> tuple[Tensor, ...]:
        return tuple(standard(x[rows]) for standard, x in zip(self.standards, features, strict=True))


def information(
    train: ByView, test: ByView, *, steps: int = 1000, batch_size: int = 256, rate: float = 1e-3, seed: int = 0
) -> list[Result]:
    """Return `estimate_information` between the features of every two views."""
    if len(train.features) < 2:
        raise NotPossible("one view has nothing to share information with")
    options: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "rate": rate, "seed": seed}
    results = []
    for one, other in itertools.combinations(train.features, 2):
        pairs = [(split.features[one], split.features[other]) for split in (train, test)]
        results += estimate_information(*pairs, what=f"{one} and {other}, ", **options)
    return results


def input_information(
    train: ByView, test: ByView, *, steps: int = 1000, batch_size: int = 256, rate: float = 1e-3, seed: int = 0
) -> list[Result]:
    """Return `estimate_information` between the features of each view and the clean view. Raw pixels give no result."""
    options: dict[str, Any] = {"steps": steps, "batch_size": batch_size, "rate": rate, "seed": seed}
    results = []
    for view in train.features:
        if not test.features[view].equal(test.inputs[view]):
            pairs = [(split.features[view], split.inputs[view]) for split in (train, test)]
            results += estimate_information(*pairs, what=f"{view} and its input, ", **options)
    return results


def estimate_information(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *, what: str = "", steps: int = 1000,
    batch_size: int = 256, rate: float = 1e-3, seed: int = 0,
) -> Iterator[Result]:  # fmt: skip
    """Yield a result for each of ESTIMATES; `train` and `test` are pairs [n, d] and [n, e]. Names begin with `what`."""
    read = torch.randperm(len(test[0]), generator=torch.Generator().manual_seed(seed))[:MOST_PAIRED]
    samples = CriticSamples(train, test, most=MOST_PAIRED, read=read, steps=steps, batch_size=batch_size, seed=seed)
    for name, estimate in ESTIMATES.items():
        yield _measure(samples, name, estimate, f"{what}{name}", rate, seed)


def _measure(samples: CriticSamples, name: str, estimate: Estimate, what: str, rate: float, seed: int) -> Result:
    bound, (width, other_width) = estimate.make_bound(), (x.shape[1] for x in samples.train)
    with seeded(seed, samples.device):
        critic = Separable(width, other_width, UNITS).to(samples.device)
    stopped_at = train_critic(
        critic,
        samples.batches,
        lambda rows: shares_of_pairs(bound, critic, *samples.batch(rows)).mean(),
        lambda: shares_of_pairs(estimate.chosen_by, critic, *samples.held_out).mean(),
        rate=rate,
    )
    with torch.no_grad():
        parts = shares_of_pairs(estimate.read_by, critic, *samples.test).cpu()
    protocol = {
        "estimator": f"{name}{', no bound' * (name == 'smile')}",
        "trained_by": estimate.trained_by,
        "critic": f"inner product of two perceptrons, {UNITS} hidden units and as many out",
        "pairs": "every two samples of a batch",
        "optimizer": "Adam",
        "learning_rate": rate,
        "steps_at_most": samples.batches.steps,
        "batch_size": samples.batches.rows,
        "candidates": len(parts),
        "ceiling": math.log(len(parts)) if name == "infonce" else None,
        "scaling": "standardised by train",
        "chosen": "the step of the highest bound on 20% of train, never trained on; read on test",
        "standard_error": "std over the rows of test / sqrt(rows)",
    }
    chosen = {"stopped_at_step": stopped_at}
    return mean_over_samples(parts, INFORMATION, protocol, what=what, chosen=chosen, chance=0.0)


def shares_of_pairs(bound: ByAnchor, critic: Separable, x: Tensor, y: Tensor) -> Tensor:
    """Return the share of each of n samples in a bound over all pairs of [n, d] and [n, e]: float64 [n]."""
    scores = critic(x, y[:, None])[:, :, 0].double()
    return bound(scores.diagonal(), off_diagonal(scores))


def off_diagonal(scores: Tensor) -> Tensor:
    """Return [n, n] as [n, n - 1], each row without its entry on the diagonal."""
    n = len(scores)
    return scores.flatten()[1:].view(n - 1, n + 1)[:, :-1].reshape(n, n - 1)


def ndm(
    train: Labelled, test: Labelled, *, steps: int = 1000, batch_size: int = 1024, rate: float = 1e-4, seed: int = 0
) -> Result:
    """Train a discriminator on train and return the measure on test. Labels are not used."""
    x, read = (train.features,), draw_rows(len(test.features), MOST_PERMUTED, seed)
    samples = CriticSamples(
        x, (test.features,), most=MOST_PERMUTED, read=read, steps=steps, batch_size=batch_size, seed=seed
    )
    width = train.features.shape[1]
    if width < 2:
        raise NotPossible("one dimension depends on no other")
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed, samples.device):
        critic = Discriminator(width).to(samples.device)
    (held_out,), (tested,) = samples.held_out, samples.test
    mixed = permute_columns(held_out, generator)

    def of_batch(rows: Tensor) -> Tensor:
        (z,) = samples.batch(rows)
        return nwj.by_anchor(critic(z), critic(permute_columns(z, generator))[:, None]).mean()

    def read_by_dv(z: Tensor, permuted: Tensor) -> Tensor:
        # NWJ needs the right constant in the scores, and explodes without it; DV does not depend on it
        return dv_by_anchor(critic(z).double(), critic(permuted).double()[:, None])

    stopped_at = train_critic(critic, samples.batches, of_batch, lambda: read_by_dv(held_out, mixed).mean(), rate=rate)
    with torch.no_grad():
        parts = read_by_dv(tested, permute_columns(tested, generator)).cpu()
    protocol = {
        "discriminator": f"perceptron, {' and '.join(map(str, HIDDEN))} hidden units, ReLU",
        "trained_by": "the KL f-divergence bound (NWJ)",
        "read_as": "Donsker-Varadhan",
        "optimizer": "Adam",
        "learning_rate": rate,
        "steps_at_most": steps,
        "batch_size": samples.batches.rows,
        "scaling": "standardised by train",
        "chosen": "the step of the highest Donsker-Varadhan bound on 20% of train, never trained on; read on test",
        "samples_at_most": f"{MOST_PERMUTED} of what is held out of train, {MOST_PERMUTED} of test, drawn by the seed",
        "standard_error": "std over samples / sqrt(samples)",
    }
    return mean_over_samples(parts, DEPENDENCE, protocol, chosen={"stopped_at_step": stopped_at}, chance=0.0)


class Discriminator(nn.Module):
    """[n, d] -> scores [n], which start near 1: NWJ of such a critic is near 0."""

    def __init__(self, width: int):
        super().__init__()
        self.net = perceptron(width, *HIDDEN, 1)

    def forward(self, z: Tensor) -> Tensor:
        return 1 + self.net(z)[:, 0]


def permute_columns(z: Tensor, generator: torch.Generator) -> Tensor:
    """Return [n, d] with each column in a random order of its own."""
    order = torch.rand(z.shape, generator=generator).argsort(dim=0)
    return z.gather(0, order.to(z.device))
