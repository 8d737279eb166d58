"""Neural Dependency Measure: how far the dimensions of a representation are from independent.

in   features [n, d] of train and test
out  a lower bound in nats on their total correlation KL(p(z) || p(z_1) ... p(z_d)): 0 where they are independent

A discriminator learns to tell z from z whose features were each permuted over the samples. It is trained by the KL
f-divergence bound (NWJ) and read by Donsker and Varadhan's, as in Deep InfoMax (Hjelm et al., 2019, arXiv:1808.06670,
section 4.2), but on samples that it was not trained on.
"""

import math

import torch
from torch import Tensor, nn

from mvssl.evaluation.features.labelled import Labelled, Standard, few
from mvssl.evaluation.probes.fitting import hold_out, minibatches, seeded
from mvssl.evaluation.probes.variational import dv, nwj, train_critic
from mvssl.evaluation.results.metrics import SAMPLES, Metric, NotPossible, Result
from mvssl.objectives.heads import perceptron

NDM = Metric("dependence", "nats", higher_is_better=False, low=-math.inf, high=math.inf)
HIDDEN = (1000, 200)  # of the discriminator in Deep InfoMax's public code
MOST = 10_000  # samples of test, and of what is held out of train: each column of theirs is put in an order of its own


def ndm(
    train: Labelled, test: Labelled, *, steps: int = 1000, batch_size: int = 1024, rate: float = 1e-4, seed: int = 0
) -> Result:
    """The measure on test of a discriminator trained on train; labels are not used."""
    if min(len(train.features), len(test.features)) < 16:
        raise NotPossible("too few samples to train a discriminator on and to read it on")
    if train.features.shape[1] < 2:
        raise NotPossible("one dimension depends on no other")
    standard, z, device = Standard.of(train.features), train.features, train.features.device
    kept, held = (rows.to(device) for rows in hold_out(len(z), 0.2, seed))
    batches = minibatches(len(kept), batch_size=batch_size, epochs=0, least_steps=steps, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with seeded(seed, device):
        critic = Discriminator(z.shape[1]).to(device)
    chosen_by = standard(z[held[:MOST]])
    mixed = permuted(chosen_by, generator)

    def drawn(step: int) -> Tensor:
        rows = standard(z[kept[batches[step].to(device)]])
        return told_apart(critic(rows), critic(permuted(rows, generator)))

    def on_held() -> Tensor:
        # NWJ needs a constant in the scores to be right, and explodes where it is not: DV does without
        return dv(critic(chosen_by).double(), critic(mixed).double()[:, None]).mean()

    at = train_critic(critic, drawn, on_held, steps=steps, rate=rate)
    x = standard(test.features[few(len(test.features), MOST, seed).to(device)])
    with torch.no_grad():
        parts = dv(critic(x).double(), critic(permuted(x, generator)).double()[:, None]).cpu()
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
        "samples_at_most": f"{MOST} of what is held out of train, {MOST} of test, drawn by the seed",
        "standard_error": "std over samples / sqrt(samples)",
    }
    error = parts.std().item() / math.sqrt(len(parts))
    return Result(parts.mean().item(), NDM, protocol, error, parts, SAMPLES, chosen={"stopped_at_step": at}, chance=0.0)


class Discriminator(nn.Module):
    """[n, d] -> scores [n], which start near 1: where NWJ is that of a critic that says nothing."""

    def __init__(self, width: int):
        super().__init__()
        self.net = perceptron(width, *HIDDEN, 1)

    def forward(self, z: Tensor) -> Tensor:
        return 1 + self.net(z)[:, 0]


def told_apart(together: Tensor, apart: Tensor) -> Tensor:
    """NWJ of scores [n] of samples as they are and [n] of samples whose features were drawn from different ones."""
    return nwj(together, apart[:, None]).mean()


def permuted(z: Tensor, generator: torch.Generator) -> Tensor:
    """[n, d] with each column in an order of its own."""
    order = torch.rand(z.shape, generator=generator).argsort(dim=0)
    return z.gather(0, order.to(z.device))
