"""Entries of the feature cache: complete, or missing."""

import json
import os

import numpy as np
import pytest
import torch

from mvssl.errors import RecipeError, StorageError
from mvssl.evaluation.features import cache

OF = {"weights": "abc", "layer": "vector"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MVSSL_CACHE", str(tmp_path / "cache"))


def written(description=OF, rows=(0, 1, 2, 3), value=1.0):
    with cache.Writer(description, 4) as writer:
        for row in rows:
            writer.write("x", np.array([row]), np.full((1, 5), value * row, np.float32))
        return writer.close()


def files():
    return sorted(cache.folder().rglob("*.npy"))


def test_an_entry_is_read_by_its_description():
    made = written()
    result = cache.read_entry(dict(reversed(OF.items())))
    assert result["x"].equal(made["x"])
    assert result["x"].equal(torch.arange(4.0)[:, None].expand(4, 5))
    assert cache.read_entry(OF | {"layer": "head"}) is None


def test_rows_that_were_never_written_are_not_usable():
    result = written(rows=(0, 2))
    assert result.rows.tolist() == [0, 2]
    assert result["x"][:, 0].tolist() == [0, 2]


def test_writing_into_an_array_does_not_change_the_file():
    written()
    cache.read_entry(OF).arrays["x"].zero_()
    assert cache.read_entry(OF)["x"].sum() > 0


@pytest.mark.parametrize("harm", ["a bit", "an end", "a file", "the description", "no file at all"])
def test_a_damaged_entry_counts_as_missing_and_is_replaced(harm):
    written()
    file, about = files()[0], next(cache.folder().rglob("about.json"))
    if harm == "a bit":
        body = bytearray(file.read_bytes())
        body[-3] ^= 1
        file.write_bytes(body)
    elif harm == "an end":
        file.write_bytes(file.read_bytes()[:-4])
    elif harm == "a file":
        file.unlink()
    elif harm == "the description":
        about.write_text("{")
    else:
        about.write_text(json.dumps({"arrays": {}}))
    assert cache.read_entry(OF) is None
    written(value=2.0)
    assert cache.read_entry(OF)["x"][3, 0] == 6


def test_an_unfinished_entry_is_never_read_and_is_removed():
    with cache.Writer(OF, 4) as writer:
        writer.write("x", np.array([0]), np.ones((1, 5), np.float32))
        assert cache.read_entry(OF) is None
    assert not list(cache.folder().iterdir())


def test_features_are_computed_without_a_writable_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MVSSL_CACHE", str(tmp_path / "file"))
    assert written()["x"][:, 0].tolist() == [0, 1, 2, 3]
    assert cache.read_entry(OF) is None


def test_a_full_disk_is_an_error_that_names_mvssl_cache(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StorageError, match="MVSSL_CACHE=FOLDER"):
        written()
    assert not list(cache.folder().iterdir())


def test_the_least_recently_used_entries_are_evicted(monkeypatch):
    old, used, new = ({"number": number} for number in range(3))
    written(old)
    written(used)
    for age, description in ((300, old), (200, used)):
        os.utime(cache.folder() / cache.name_entry(description), (age, age))
    assert cache.read_entry(old) is not None  # which is a use
    size = cache.list_entries()[0][1]
    monkeypatch.setenv("MVSSL_CACHE_LIMIT", str(2.5 * size / 2**30))
    written(new)
    assert cache.evict_entries() == 0
    assert cache.read_entry(used) is None
    assert cache.read_entry(old) is not None
    assert cache.read_entry(new) is not None


def test_entries_in_use_are_not_evicted_until_they_are_released(monkeypatch):
    """The next probe of the same evaluation reads them; evicted, it would compute everything again."""
    written({"number": 0})
    own = [written({"number": number}) for number in (1, 2)] + [cache.read_entry({"number": 1})]
    size = cache.list_entries()[0][1]
    monkeypatch.setenv("MVSSL_CACHE_LIMIT", str(1.5 * size / 2**30))
    assert cache.evict_entries() * 2**30 == pytest.approx(0.5 * size)
    assert len(cache.list_entries()) == 2
    assert cache.read_entry({"number": 0}) is None
    own.clear()
    assert cache.evict_entries() == 0
    assert len(cache.list_entries()) == 1


@pytest.mark.parametrize("given", ["20 GiB", "-1", "nan"])
def test_a_limit_that_is_not_a_number_is_refused(monkeypatch, given):
    monkeypatch.setenv("MVSSL_CACHE_LIMIT", given)
    with pytest.raises(RecipeError, match=f"MVSSL_CACHE_LIMIT={given}"):
        cache.read_limit()
