"""Packed digits, and a run on them."""

import pytest
from digit_runs import make_run

from mvssl.data.packing import pack


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    pack("digits", root / "digits", progress=False)
    return root


@pytest.fixture(scope="module")
def loaded(digits, tmp_path_factory):
    return make_run(digits, tmp_path_factory.mktemp("runs") / "a")
