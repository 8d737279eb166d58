"""What probes that train by steps share: minibatches, held-out samples, the loss, the training of critics."""

import pytest
import torch
from labelled_points import largest_made

from mvssl.evaluation.probes.fitting import PATIENCE, hold_out, loss, minibatches, train_critic


def test_an_epoch_shows_every_sample_at_most_once():
    steps = list(minibatches(130, batch_size=64, epochs=10, least_steps=1, seed=0))
    assert [len(rows) for rows in steps] == [64] * 20
    assert all(len(torch.cat(steps[e : e + 2]).unique()) == 128 for e in range(0, 20, 2))
    assert len(torch.cat(steps).unique()) == 130


def test_every_iteration_yields_the_same_batches():
    batches = minibatches(130, batch_size=64, epochs=4, least_steps=1, seed=0)
    first, again = list(batches), list(batches)
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert len(first) == batches.steps == 8
    assert not first[0].equal(first[2])


def test_the_order_of_one_pass_is_in_memory_at_a_time():
    """150 passes over 20,000 samples are 24 MB of numbers."""
    with largest_made() as largest:
        steps = minibatches(20_000, batch_size=512, epochs=150, least_steps=1, seed=0)
        assert len(list(zip(steps, range(100), strict=False))) == 100
    assert largest[0] <= 20_000


def test_held_out_samples_are_not_among_the_others():
    kept, held = hold_out(50, 0.2, 0)
    assert sorted(torch.cat([kept, held]).tolist()) == list(range(50))
    assert len(held) == 10


def test_the_loss_of_multi_hot_labels_is_a_sum_of_binary_cross_entropies():
    scores, labels = torch.randn(6, 3), (torch.rand(6, 3) < 0.5).float()
    by_hand = -(labels * scores.sigmoid().log() + (1 - labels) * (1 - scores.sigmoid()).log()).sum(1).mean()
    assert loss(scores, labels).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_a_critic_keeps_the_weights_of_the_best_held_out_bound():
    """The held-out bound falls from step 50 on, so the weights of step 50 are restored."""
    weight = torch.nn.Linear(1, 1, bias=False)
    seen = []

    def held_out():
        seen.append(weight.weight.item())
        return -torch.tensor(abs(len(seen) - 3.0))  # evaluated before step 1, and after steps 25, 50, ...

    batches = torch.arange(1000).split(1)
    assert train_critic(weight, batches, lambda _: weight.weight.sum(), held_out, rate=0.1) == 50
    assert weight.weight.item() == seen[2]
    assert len(seen) == 3 + PATIENCE
