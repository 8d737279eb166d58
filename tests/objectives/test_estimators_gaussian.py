"""The oracle: for correlated Gaussians the mutual information and the best critic are known in closed form."""

import math

import pytest
import torch
from torch.testing import assert_close

from mvssl.objectives import estimators
from mvssl.objectives.estimators import NEGATIVE, POSITIVE, Estimator
from mvssl.objectives.scoring.critics import ConcatMLP


def information(rho, d=1):
    return -d / 2 * math.log(1 - rho**2)


def draw(n, rho, d=1):
    x = torch.randn(n, d, dtype=torch.float64)
    return x, rho * x + math.sqrt(1 - rho**2) * torch.randn(n, d, dtype=torch.float64)


def log_ratio(x, y, rho):
    """log p(x, y) / (p(x) p(y)) of every x with every y, [n, n, 1]."""
    x, y = x[:, None], y[None]
    exponent = (rho**2 * (x**2 + y**2) - 2 * rho * x * y) / (2 * (1 - rho**2))
    return (-exponent).sum(-1, keepdim=True) + information(rho, x.shape[-1])


def own(n):
    return torch.where(torch.eye(n, dtype=torch.bool), POSITIVE, NEGATIVE).to(torch.int8)[..., None]


def readings(name, rho, d, n, batches, shift=0.0):
    """The bound of the best critic on many independent batches."""
    mask = own(n)
    return torch.stack(
        [estimators.ESTIMATORS[name](log_ratio(*draw(n, rho, d), rho) + shift, mask) for _ in range(batches)]
    )


@pytest.mark.parametrize(("rho", "nats"), [(0.5, 0.14384), (0.8, 0.51083), (0.9, 0.83037), (0.99, 1.95852)])
def test_the_oracle_itself_is_the_table_of_the_literature(rho, nats):
    assert information(rho) == pytest.approx(nats, abs=1e-5)


@pytest.mark.parametrize("rho", [0.5, 0.8, 0.9])
@pytest.mark.parametrize(
    ("name", "shift"), [("nwj", 1.0), ("kl", 1.0), ("dv", 0.0), ("dv", 5.0), ("smile", 0.0), ("infonce", 0.0)]
)
def test_the_best_critic_on_a_large_batch_gives_the_information(name, shift, rho):
    assert readings(name, rho, 1, 1000, 4, shift).mean().item() == pytest.approx(information(rho), abs=0.05)


@pytest.mark.parametrize("name", ["jsd", "gan", "reverse_kl", "smile"])
def test_nwj_of_the_log_ratio_is_the_information_in_nats(name):
    scores = log_ratio(*draw(1500, 0.8), 0.8)
    assert estimators.in_nats(name, scores, own(1500)).item() == pytest.approx(information(0.8), abs=0.05)


def test_infonce_stays_below_its_ceiling():
    truth, n = information(0.99, d=5), 64  # 9.8 nats
    value = readings("infonce", 0.99, 5, n, 20)
    assert value.max() <= math.log(n)
    assert value.mean() > 0.95 * math.log(n)
    assert truth > 2 * math.log(n)


def test_infonce_is_biased_low_and_less_so_with_more_candidates():
    truth = information(0.9, d=2)
    few, many = (readings("infonce", 0.9, 2, n, 2000 // n).mean() for n in (8, 200))
    assert few < many - 0.1
    assert many < truth + 0.05


def test_dv_is_too_high_with_few_negatives_and_nwj_is_not():
    truth, batches = information(0.6, d=3), 2000
    dv = readings("dv", 0.6, 3, 3, batches)
    nwj = readings("nwj", 0.6, 3, 3, batches, shift=1.0)
    assert dv.mean() - truth > 5 * dv.std() / math.sqrt(batches)
    assert abs(nwj.mean() - truth) < 4 * nwj.std() / math.sqrt(batches)


def test_the_variance_of_nwj_grows_with_information_not_of_infonce():
    spread = {
        (name, d): readings(name, 0.8, d, 64, 200, shift=1.0).std() for name in ("nwj", "infonce") for d in (1, 8)
    }
    assert spread["nwj", 8] > 3 * spread["nwj", 1]
    assert spread["infonce", 8] < 2 * spread["infonce", 1]


def test_the_clip_of_smile_lowers_variance_and_raises_the_value():
    """With 4.1 nats the best critic's DV value jumps about; SMILE's does so less and less, and lies ever higher."""
    truth, mask, n = information(0.8, d=8), own(64), 64
    scores = [log_ratio(*draw(n, 0.8, 8), 0.8) for _ in range(300)]
    dv = torch.stack([estimators.dv(t, mask) for t in scores])
    wide, narrow = (torch.stack([estimators.smile(t, mask, clip) for t in scores]) for clip in (5.0, 1.0))
    assert narrow.std() < wide.std() < dv.std()
    assert dv.mean() < wide.mean() + 1e-9 < narrow.mean()
    assert narrow.mean() > truth  # so it is no bound


def test_the_best_critic_is_a_maximum_of_every_bound():
    x, y = draw(1000, 0.8)
    best, other = log_ratio(x, y, 0.8), log_ratio(x, y, 0.6)
    for name, shift in (("jsd", 0), ("nwj", 1), ("dv", 0), ("infonce", 0), ("reverse_kl", 0)):
        bound = estimators.ESTIMATORS[name]
        assert bound(best + shift, own(1000)) > bound(other + shift, own(1000)), name


@pytest.mark.parametrize(
    ("name", "reading"), [("jsd", "bound"), ("smile", "smile"), ("smile", "bound"), ("mine", "bound")]
)
def test_a_trained_critic_tells_the_information(name, reading):
    estimator = Estimator(name, ["x-y"])
    critic = ConcatMLP(1, 1, (48, 48)).double()
    optimizer = torch.optim.Adam(critic.parameters(), lr=5e-3)
    mask = torch.tensor([POSITIVE, NEGATIVE], dtype=torch.int8)

    def scores(n):
        """Every x with its own y and with the y of the row before: [1, n, 2]."""
        x, y = draw(n, 0.8)
        return torch.stack([critic.score_rows(x, y), critic.score_rows(x, y.roll(1, 0))], dim=-1)[None]

    for _ in range(400):
        loss, _ = estimator("x-y", scores(512), mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    held_out = scores(20_000).detach()
    _, metrics = estimator.eval()("x-y", held_out, mask)
    assert metrics[reading].item() == pytest.approx(information(0.8), abs=0.06)
    if name == "jsd":
        assert_close(metrics["bound"], estimators.nwj(held_out + 1, mask))
