"""Before the first step: a batch in which no sample can be compared is refused."""

import pytest
import small_runs

from mvssl import train
from mvssl.errors import RecipeError

TERMS = [{"name": name} for name in ("cmc", "mib", "infomax", "dim")]
TERMS += [[{"name": "predict"}, {"name": "cmc"}], {"name": "mib", "negatives": "all"}]


@pytest.mark.parametrize("objective", TERMS)
def test_a_batch_of_one_is_refused_where_samples_are_compared(tmp_path, objective):
    small_runs.write_shards(tmp_path / "train")
    with pytest.raises(RecipeError, match=r"data\.batch_size: 1 leaves the objective (cmc|mib|infomax|dim)"):
        train(small_runs.recipe(tmp_path, tmp_path / "run", data__batch_size=1, objective=objective))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_two_samples_are_a_batch_and_one_is_where_nothing_is_compared(tmp_path):
    small_runs.write_shards(tmp_path / "train")
    train(small_runs.recipe(tmp_path, tmp_path / "two", data__batch_size=2, train__steps=1))
    given = {"data__batch_size": 1, "train__steps": 1, "objective": {"name": "predict", "units": 8}}
    train(small_runs.recipe(tmp_path, tmp_path / "one", **given))


def train_one_row_each(given):
    assert small_runs.train_as_rank(given) == (2, "")


def test_one_row_on_each_of_two_processes_is_a_batch_of_two(tmp_path, processes):
    small_runs.write_shards(tmp_path / "train")
    processes(train_one_row_each, small_runs.tables(tmp_path, tmp_path / "run", data__batch_size=2, train__steps=1))
