"""Trackers are known and installed, or refused with the package before any data is read."""

import pytest
import small_runs
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from mvssl import train
from mvssl.errors import RecipeError
from mvssl.training import accelerator
from mvssl.training.accelerator import refuse_trackers


@pytest.fixture
def installed(monkeypatch):
    """Sets which trackers are installed."""
    return lambda *names: monkeypatch.setattr(accelerator, "get_available_trackers", lambda: list(names))


@pytest.mark.parametrize("name", LOGGER_TYPE_TO_CLASS)
def test_every_tracker_that_is_not_installed_is_refused_with_its_package(installed, name):
    installed()
    package = {"comet_ml": "comet-ml", "aim": "'aim<4'"}.get(name, name)
    with pytest.raises(RecipeError, match=f"train.trackers: {name} is not installed; `pip install {package}`"):
        refuse_trackers([name])
    installed(name)
    refuse_trackers([name, "all"])


def test_all_means_at_least_one(installed):
    installed()
    with pytest.raises(RecipeError, match="pip install tensorboard"):
        refuse_trackers(["all"])
    refuse_trackers([])


def test_an_unknown_tracker_is_refused_with_the_nearest_name(installed):
    installed("tensorboard")
    with pytest.raises(RecipeError, match="no tracker 'wandbb'; did you mean 'wandb'"):
        refuse_trackers(["tensorboard", "wandbb"])


def test_a_missing_tracker_is_refused_before_anything_is_read_or_written(installed, tmp_path):
    installed()
    with pytest.raises(RecipeError, match="pip install wandb"):
        train(small_runs.recipe(tmp_path / "no data", tmp_path / "run", train__trackers=["wandb"]))
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_cannot_start_is_reported_with_its_first_line(monkeypatch, tmp_path):
    def refuse(*_):
        raise ConnectionRefusedError("no login\nmany lines")

    small_runs.write_shards(tmp_path / "train")
    monkeypatch.setattr("accelerate.Accelerator.init_trackers", refuse)
    with pytest.raises(RecipeError, match="could not be started: no login; leave"):
        train(small_runs.recipe(tmp_path, tmp_path / "run"))
