"""Draws: hashes that behave like random numbers, row by row."""

import math

import numpy as np
import pytest
import torch

from mvssl.random import GOLDEN, Draws, hash_name, mix


@pytest.fixture
def many() -> Draws:
    return Draws(0, torch.arange(50_000))


def test_a_row_depends_on_its_own_position_alone():
    position = torch.tensor([7, 3, 1_000_000_007, 0, 2**40])
    whole, part = Draws(5, position), Draws(5, position[[4, 1]])
    for kind in ("uniform", "normal", "bits"):
        assert torch.equal(getattr(whole, kind)("x", 3)[[4, 1]], getattr(part, kind)("x", 3))
    assert torch.equal(whole.integers("x", 10, 2)[[4, 1]], part.integers("x", 10, 2))


def test_the_same_name_gives_the_same_numbers_and_another_name_others():
    draws = Draws(0, torch.arange(8))
    assert torch.equal(draws.uniform("x", 4), draws.uniform("x", 4))
    others = [draws.uniform("y", 4), draws.within("z").uniform("x", 4), Draws(1, draws.position).uniform("x", 4)]
    assert not any(torch.equal(draws.uniform("x", 4), other) for other in others)


def test_bits_are_splitmix64_in_plain_integers():
    def mix64(x: int) -> int:
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    golden = 0x9E3779B97F4A7C15
    bits = Draws(5, torch.tensor([3, 2**40]), scope="s").bits("x", 2)
    for row, position in enumerate((3, 2**40)):
        start = mix64((position * golden + hash_name(5, "s", "x")) % 2**64)
        for place in range(2):
            assert bits[row, place].item() % 2**64 == mix64((start + (place + 1) * golden) % 2**64)


@pytest.mark.parametrize("shape", [(3,), (2, 5), (40_000,)])
def test_bits_of_a_cpu_are_those_of_any_device(shape):
    draws = Draws(5, torch.tensor([3, -8, 2**40]), scope="s")
    row = mix(draws.position * GOLDEN + hash_name(5, "s", "x"))
    place = torch.arange(1, math.prod(shape) + 1) * GOLDEN
    bits = mix(row[:, None] + place).view(3, *shape)  # as on a GPU
    assert torch.equal(draws.bits("x", *shape), bits)
    assert torch.equal(draws.uniform("x", *shape), (bits >> 11 & (1 << 53) - 1).double() / 2**53)
    small = draws.uniform("x", *shape, dtype=torch.float32)
    assert torch.equal(small, (bits >> 40 & (1 << 24) - 1).float() / 2**24)


def test_several_names_in_one_pass_are_the_draws_of_each_name():
    draws = Draws(5, torch.tensor([7, 3, 1_000_000_007, 0, 2**40, -4]), scope="view/a")
    found = draws.uniforms(x=3, y=1, z=10)
    assert list(found) == ["x", "y", "z"]
    for name, numbers in found.items():
        assert torch.equal(torch.from_numpy(numbers).T, draws.uniform(name, len(numbers)))


def test_chosen_rows_keep_their_draws():
    draws, rows = Draws(5, torch.arange(9), scope="view/a"), np.array([7, 2])
    assert torch.equal(draws.take(rows).uniform("x", 3), draws.uniform("x", 3)[rows])


def test_names_hash_alike_in_every_process_and_version():
    assert hash_name("crop") == -1792330252851675775
    assert hash_name("a", "bc") != hash_name("ab", "c")


def test_uniform_draws_fill_the_unit_interval_evenly(many):
    u = many.uniform("x", 2)
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u[:, 0], bins=50, min=0, max=1)
    chi_square = ((counts - 1000) ** 2 / 1000).sum().item()
    assert chi_square < 49 + 5 * math.sqrt(2 * 49)
    assert many.uniform("x", 2, dtype=torch.float32).max() < 1


def test_draws_of_neighbours_names_and_places_are_uncorrelated(many):
    u = many.uniform("x", 2) - 0.5
    bound = 5 / math.sqrt(len(u)) / 12
    assert (u[:-1, 0] * u[1:, 0]).mean().abs() < bound  # neighbouring positions
    assert (u[:, 0] * u[:, 1]).mean().abs() < bound  # places of one draw
    assert (u[:, 0] * (many.uniform("y", 1)[:, 0] - 0.5)).mean().abs() < bound  # names
    assert (u[:, 0] * (Draws(1, many.position).uniform("x", 1)[:, 0] - 0.5)).mean().abs() < bound  # seeds


def test_normal_draws_have_the_moments_of_a_standard_normal(many):
    z = many.normal("x", 4).flatten()
    error = 1 / math.sqrt(len(z))
    assert z.isfinite().all()
    assert abs(z.mean()) < 5 * error
    assert abs(z.square().mean() - 1) < 5 * math.sqrt(2) * error
    assert abs(z.pow(3).mean()) < 5 * math.sqrt(15) * error
    assert abs(z.pow(4).mean() - 3) < 5 * math.sqrt(96) * error


def test_integers_take_every_value_equally_often(many):
    counts = many.integers("x", 7, 1).flatten().bincount(minlength=7)
    assert len(counts) == 7
    assert (counts - 50_000 / 7).abs().max() < 5 * math.sqrt(50_000 / 7)


def test_every_bit_is_set_half_of_the_time(many):
    bits = many.bits("x", 1)
    share = torch.stack([((bits >> k) & 1).double().mean() for k in range(64)])
    assert (share - 0.5).abs().max() < 5 * 0.5 / math.sqrt(50_000)


def test_mix_sends_different_integers_to_different_integers():
    assert len(mix(torch.arange(-50_000, 50_000)).unique()) == 100_000
