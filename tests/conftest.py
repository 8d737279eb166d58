"""Fixtures of every test: gloo processes, one thread, and the same torch seed before each test."""

import atexit
import os
import shutil
import tempfile

import gloo_processes
import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["MVSSL_CACHE"] = tempfile.mkdtemp(prefix="mvssl-cache-")  # before gloo's processes inherit it
atexit.register(shutil.rmtree, os.environ["MVSSL_CACHE"], ignore_errors=True)
torch.set_num_threads(1)


@pytest.fixture
def processes():
    """`processes(function, *arguments, world=2)` runs a function in gloo processes; see gloo_processes.py."""
    return gloo_processes.processes


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
