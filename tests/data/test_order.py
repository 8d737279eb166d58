import itertools
import math
from collections import Counter

import numpy as np
import pytest

from mvssl.data import Order
from mvssl.data.order import spread_indices

SIZES = [*range(1, 130), 997, 1000, 1024, 4096, 10007]


def test_every_epoch_is_a_permutation_for_every_size():
    for n in SIZES:
        places = Order(n, seed=3)(np.arange(3 * n)).reshape(3, n)
        assert (np.sort(places, axis=1) == np.arange(n)).all(), n


def test_epochs_and_seeds_differ():
    first, second = Order(1000, seed=0)(np.arange(2000)).reshape(2, 1000)
    other = Order(1000, seed=1)(np.arange(1000))
    for one, two in [(first, second), (first, other), (second, other)]:
        assert (one == two).sum() < 15  # one place in a thousand agrees by chance


def test_the_order_of_a_seed_never_changes():
    # Written down once: a change would make every run in progress resume on other samples.
    assert Order(10, seed=0)(np.arange(10)).tolist() == [0, 2, 5, 7, 4, 3, 1, 9, 8, 6]
    assert Order(50_000, seed=7)(np.array([0, 49_999, 50_000, 10**12])).tolist() == [14810, 20218, 47407, 42910]


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_permutations_of_a_few_samples_are_equally_likely(n):
    epochs = 200 * math.factorial(n)
    seen = Counter(map(tuple, Order(n, seed=0)(np.arange(n * epochs)).reshape(-1, n).tolist()))
    counts = np.array([seen[one] for one in itertools.permutations(range(n))])
    freedom = math.factorial(n) - 1
    assert ((counts - 200) ** 2 / 200).sum() < freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("n", [7, 16, 37, 100])
def test_all_places_and_all_neighbours_are_equally_likely(n):
    epochs = 4000
    order = Order(n, seed=1)(np.arange(n * epochs)).reshape(epochs, n)
    at_place = np.stack([np.bincount(column, minlength=n) for column in order.T])
    steps = np.bincount(((order[:, 1:] - order[:, :-1]) % n).ravel(), minlength=n)[1:]
    for counts, freedom in [(at_place, (n - 1) ** 2), (steps, n - 2)]:
        chi = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
        assert abs(chi - freedom) < 5 * math.sqrt(2 * freedom)


def test_a_place_far_away_needs_no_places_before_it():
    order = Order(50_000_000, seed=0)
    far = np.arange(10**12, 10**12 + 4096)
    assert np.array_equal(order(far)[100:200], order(far[100:200]))
    assert len(np.unique(order(far))) == 4096


def test_each_attempt_gives_another_substitute():
    order = Order(1000, seed=0)
    drawn = {order.substitute(position=5, attempt=k) for k in range(1, 9)}
    assert len(drawn) == 8
    assert all(0 <= i < 1000 for i in drawn)
    assert order.substitute(5, 1) == Order(1000, seed=0).substitute(5, 1)


def test_spread_indices_are_even_and_include_both_ends():
    assert spread_indices(10, 2048).tolist() == list(range(10))
    chosen = spread_indices(1_000_000, 2048)
    assert len(chosen) == 2048
    assert chosen[0] == 0
    assert chosen[-1] == 999_999
