"""Imports without the garbage collector leave it as it was."""

import gc

import pytest

from mvssl.process.imports import uncollected_imports


@pytest.fixture(autouse=True)
def unfrozen():
    yield
    gc.enable()
    gc.unfreeze()


def test_nothing_is_collected_inside_the_block_and_what_was_made_is_left_out_later():
    with uncollected_imports():
        assert not gc.isenabled()
        kept = [[number] for number in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= len(kept)


def test_the_collector_runs_again_after_an_error():
    with pytest.raises(ImportError), uncollected_imports():
        raise ImportError
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    with uncollected_imports():
        pass
    assert not gc.isenabled()
