"""The helper that other tests stand on: it must start what it says and must not hide a failure."""

import time

import pytest
import torch
from gloo_processes import processes

from mvssl.distributed import collectives


def total_of_ranks(scale):
    return collectives.world_size(), collectives.sum_over_processes(torch.tensor(scale * (collectives.rank() + 1)))


def second_rank_fails():
    if collectives.rank() == 1:
        raise ValueError("seven")
    collectives.sum_over_processes(torch.ones(1))


def first_rank_sleeps():
    if collectives.rank() == 0:
        time.sleep(30)


def test_every_process_sees_the_world_and_the_sum():
    for seen, value in processes(total_of_ranks, 2.0):
        assert seen == 2
        assert value.item() == 6.0


def test_a_failure_in_one_process_is_raised_with_its_text():
    with pytest.raises(AssertionError, match="seven"):
        processes(second_rank_fails, timeout=15)


def test_a_process_that_hangs_runs_into_the_time_limit():
    processes(total_of_ranks, 1.0)  # imports are done, so that only the sleeper is late
    with pytest.raises(TimeoutError, match=r"\[0\]"):
        processes(first_rank_sleeps, timeout=4)
