"""MINE: its gradient against the definition, the moving average by hand, and where that average is kept."""

import math

import pytest
import small_runs
import torch
from small_features import WIDTHS, context, features
from torch import nn
from torch.testing import assert_close

from mvssl import train
from mvssl.distributed import collectives
from mvssl.objectives import DIM, MIB, estimators
from mvssl.objectives.estimators import IGNORE, NEGATIVE, POSITIVE, Estimator, mine
from mvssl.training import guard

N, L = 5, 3
OWN = torch.full((N, N, 1), NEGATIVE, dtype=torch.int8)
OWN[torch.arange(N), torch.arange(N)] = POSITIVE
NONE = torch.tensor(-math.inf, dtype=torch.float64)


def scores():
    return torch.randn(N, N, L, dtype=torch.float64, requires_grad=True)


def of_kind(t, kind, mask=OWN):
    return t[(mask == kind).expand_as(t)]


def test_on_the_first_batch_value_and_gradient_equal_dv():
    t = scores()
    value, moved = mine(t, OWN, NONE)
    dv = estimators.dv(t, OWN)
    assert_close(value, dv)
    assert_close(torch.autograd.grad(value, t), torch.autograd.grad(dv, t))
    assert_close(moved, of_kind(t, NEGATIVE).exp().mean().log().detach())


def test_later_the_gradient_divides_by_the_average():
    t, rate = scores(), 0.1
    value, moved = mine(t, OWN, torch.tensor(2.0).double().log(), rate)
    assert_close(value, estimators.dv(t, OWN))
    batch = of_kind(t, NEGATIVE).exp().mean().detach()
    average = (1 - rate) * 2.0 + rate * batch
    assert_close(moved.exp(), average)

    by_definition = of_kind(t, POSITIVE).mean() - of_kind(t, NEGATIVE).exp().mean() / average
    assert_close(torch.autograd.grad(value, t), torch.autograd.grad(by_definition, t))


def test_the_average_moves_batch_by_batch():
    log_average, by_hand = NONE, None
    for _ in range(6):
        t = scores().detach()
        _, log_average = mine(t, OWN, log_average, 0.25)
        now = of_kind(t, NEGATIVE).exp().mean().item()
        by_hand = now if by_hand is None else 0.75 * by_hand + 0.25 * now
    assert log_average.exp().item() == pytest.approx(by_hand)


def test_on_small_batches_mine_has_an_unbiased_gradient_and_dv_has_not():
    """Of E_neg e^(kT): the whole data's gradient by k is known, T being standard normal among the negatives."""
    k = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([POSITIVE] + [NEGATIVE] * 4, dtype=torch.int8)
    log_average, ours, dvs = torch.tensor(0.5).double(), [], []  # log E e^T = 1/2, as after a long run
    for _ in range(1500):
        t = torch.cat([torch.zeros(1), torch.randn(4)]).double() * k
        value, log_average = mine(t[None, None], mask, log_average, 0.002)
        ours.append(-torch.autograd.grad(value, k)[0])
        dvs.append(-torch.autograd.grad(estimators.dv(k * t.detach()[None, None], mask), k)[0])
    truth = 1.0  # E T e^T / E e^T
    (our_mean, dv_mean), (our_error, dv_error) = zip(
        *((torch.stack(g).mean().item(), torch.stack(g).std().item() / 1500**0.5) for g in (ours, dvs)), strict=True
    )  # fmt: skip
    assert abs(our_mean - truth) < 4 * our_error + 0.05
    assert truth - dv_mean > 10 * dv_error


@pytest.mark.parametrize("strange", [1e30, -math.inf, math.nan])
def test_ignored_pairs_change_neither_value_gradient_nor_average(strange):
    mask = OWN.expand(N, N, L).clone()
    mask[1, 2], mask[3, 3, 1], mask[:, 4] = IGNORE, IGNORE, IGNORE
    t, average = scores().detach(), torch.tensor(0.3).double()
    found = []
    for fill in (0.0, strange):
        filled = t.masked_fill(mask == IGNORE, fill).requires_grad_()
        value, moved = mine(filled, mask, average)
        found.append((value.detach(), moved, torch.autograd.grad(value, filled)[0]))
    assert_close(found[0], found[1])
    assert (found[1][2][mask == IGNORE] == 0).all()


@pytest.mark.parametrize("before", [-math.inf, 0.7])
@pytest.mark.parametrize("absent", [POSITIVE, NEGATIVE, None])
def test_without_positives_or_negatives_the_average_stays(absent, before):
    mask = torch.full_like(OWN, IGNORE) if absent is None else OWN.masked_fill(absent == OWN, IGNORE)
    t, before = scores(), torch.tensor(before).double()
    value, moved = mine(t, mask, before)
    assert value.item() == 0
    assert (torch.autograd.grad(value, t)[0] == 0).all()
    assert_close(moved, before)


def test_scores_too_large_for_their_exponential_leave_all_finite():
    t = torch.where(OWN == POSITIVE, 120.0, 150.0).expand(N, N, L).requires_grad_()  # e^120 is no float32
    value, moved = mine(t, OWN, torch.tensor(1.0))
    assert value.isfinite()
    assert moved.isfinite()
    assert torch.autograd.grad(value, t)[0].isfinite().all()


def test_each_key_has_its_own_average_and_only_training_moves_it():
    estimator = Estimator("mine", ["a-b", "a-c"], rate=0.5)
    assert set(estimator.state_dict()) == {"log_average/a-b", "log_average/a-c"}
    t = scores().detach().float()
    estimator("a-b", t, OWN)
    after = estimator.get_buffer("log_average/a-b").clone()
    assert after.isfinite()
    assert estimator.get_buffer("log_average/a-c").isneginf()
    estimator.eval()("a-b", t + 1, OWN)
    assert_close(estimator.get_buffer("log_average/a-b"), after)


def test_the_other_estimators_have_no_state_and_take_their_options():
    t = scores()
    assert not Estimator("dv", ["a-b"]).state_dict()
    assert_close(Estimator("dv", ["a-b"])("a-b", t, OWN), estimators.estimate("dv", t, OWN))
    _, metrics = Estimator("smile", [], clip=0.5)("a-b", t, OWN)
    assert_close(metrics["smile"], estimators.smile(t, OWN, clip=0.5).detach())
    _, metrics = Estimator("infonce", [], mask_value=-1.0)("a-b", t, OWN)
    assert_close(metrics["bound"], estimators.infonce(t, OWN, mask_value=-1.0).detach())


def test_a_vetoed_step_leaves_the_average_where_it_was():
    estimator = Estimator("mine", ["a-b"])
    buffers = guard.BufferSnapshot(estimator)
    for strange, vetoed in ((0.0, False), (math.nan, True), (1.0, False)):
        before = estimator.get_buffer("log_average/a-b").clone()
        buffers.take()
        estimator("a-b", scores().detach().float() + strange, OWN)
        buffers.restore_where(torch.tensor(vetoed))
        assert torch.equal(estimator.get_buffer("log_average/a-b"), before) == vetoed
    assert estimator.get_buffer("log_average/a-b").isfinite()


OBJECTIVES = {
    "dim": lambda: DIM(dict.fromkeys("ab", WIDTHS), estimator="mine", units=8, global_weight=0.5, mine_rate=0.2),
    "mib": lambda: MIB(dict.fromkeys("ab", WIDTHS), estimator="mine", latent=6, units=16, mine_rate=0.2),
}


def several_steps(name):
    """Averages after three steps of 8 samples, and the last step's gradient by the global loss."""
    torch.manual_seed(3)
    objective = OBJECTIVES[name]().double()
    for m in objective.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.eval()
    n = 8 // collectives.world_size()
    own, gradients = collectives.own_rows(n), []
    for step in range(3):
        whole = {view: features(8) for view in "ab"}
        here = {
            v: type(f)(tuple(m[own].detach().requires_grad_() for m in f.maps), f.vector[own].detach().requires_grad_())
            for v, f in whole.items()
        }  # fmt: skip
        present = {"b": torch.tensor([1, 0, 0, 0, 1, 1, 0, 1]).bool()[own]} if step == 1 else {}
        loss, _ = objective(here, context(n, step=step, start=8 * step + own.start, present=present))
        gradients.append(torch.autograd.grad(loss, here["b"].vector)[0] / collectives.world_size())
    averages = {key: value for key, value in objective.state_dict().items() if "log_average" in key}
    return averages, collectives.gather(torch.stack(gradients, 1))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_have_the_averages_and_gradients_of_one(processes, name):
    averages, gradients = several_steps(name)
    assert len(averages) == {"dim": 4, "mib": 1}[name]
    for two_averages, two_gradients in processes(several_steps, name):
        assert_close(two_averages, averages, rtol=1e-12, atol=1e-12)
        assert_close(two_gradients, gradients, rtol=1e-9, atol=1e-12)


def test_a_resumed_run_has_the_averages_of_an_uninterrupted_one(tmp_path):
    root = small_runs.write_shards(tmp_path / "train").parent
    objective = {"name": "dim", "estimator": "mine", "units": 8, "layer": 0}
    for out, legs in (("straight", [6]), ("halves", [3, 6])):
        for steps in legs:
            changes = {"objective": objective, "train__steps": steps, "optim__schedule": "constant"}
            train(small_runs.recipe(root, tmp_path / out, **changes))
    straight, halves = (small_runs.weights(tmp_path / out, 6) for out in ("straight", "halves"))
    kept = [name for name in straight if "log_average" in name]
    assert kept == [
        "objective.0.estimator.log_average/image_0/local",
        "objective.0.estimator.log_average/image_1/local",
    ]
    assert all(torch.equal(straight[name], halves[name]) for name in straight)
    assert all(straight[name].isfinite() for name in kept)
