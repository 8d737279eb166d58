"""What every test may use: gloo processes (see gloo.py), one thread, and torch seeded alike before each test."""

import os

import gloo
import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)


@pytest.fixture
def processes():
    """`processes(function, *arguments, world=2)` runs a top-level function in real gloo processes; see gloo.py."""
    return gloo.processes


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
