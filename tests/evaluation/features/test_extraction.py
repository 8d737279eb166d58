"""Every sample is computed once, on any number of processes."""

import os
import tarfile

import numpy as np
import pytest
import small_runs
import torch

from mvssl.data import open_shards
from mvssl.distributed import collectives
from mvssl.errors import MvsslError, RecipeError, StorageError
from mvssl.evaluation.features import cache
from mvssl.evaluation.features.extraction import collect_features
from mvssl.recipe import Column

COLUMNS = {"image": Column(field="png"), "label": Column(field="cls")}
SAMPLES = 40  # those of `small_runs`


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MVSSL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def shards(tmp_path):
    return small_runs.write_shards(tmp_path / "train")


def network() -> torch.nn.Module:
    """Conv and batch norm: sums whose order a kernel may choose by the size of the batch."""
    torch.manual_seed(3)
    layers = torch.nn.Conv2d(3, 6, 3), torch.nn.BatchNorm2d(6), torch.nn.ReLU(), torch.nn.Flatten()
    return torch.nn.Sequential(*layers).eval()


def gathered(folder, times=1, batch_size=7):
    """For `processes`: the features, labels and rows of a folder, and how many entries were computed each time."""
    source, model, calls = open_shards(str(folder), folder, COLUMNS, progress=False), network(), []

    def compute(batch, numbers):
        calls.append(len(batch.index))
        whole = {0: {"x": model(batch.columns["image"].float())}, 1: {"label": batch.columns["label"]}}
        return [whole[number] for number in numbers]

    result = [
        collect_features(source, [{"of": "x"}, {"of": "y"}], compute, batch_size=batch_size) for _ in range(times)
    ]
    if result[0] is None:
        return None, sum(calls)
    features, labels = result[-1].entries
    return (
        features["x"].clone(),
        labels["label"].clone(),
        features.rows.clone(),
        [f.computed for f in result],
        sum(calls),
    )


def test_every_sample_is_computed_once_in_the_order_of_the_shards(shards):
    features, labels, rows, computed, calls = gathered(shards)
    assert rows.tolist() == list(range(SAMPLES))
    assert labels.tolist() == [i % 4 for i in range(SAMPLES)]
    source = open_shards(str(shards), shards, COLUMNS, progress=False)
    whole = torch.stack([torch.from_numpy(source[i]["image"]) for i in range(SAMPLES)]).float()
    assert torch.allclose(features, network()(whole), atol=1e-4)
    assert (computed, calls) == ([2], SAMPLES)


def test_a_failing_disk_leaves_nothing_in_the_cache(shards, monkeypatch):
    real = os.pread

    def flaky(descriptor, size, offset):
        if offset > 20_000:
            raise OSError(5, "Input/output error")
        return real(descriptor, size, offset)

    with monkeypatch.context() as broken:
        broken.setattr(os, "pread", flaky)
        with pytest.raises(StorageError, match="Input/output error"):
            gathered(shards)
    assert cache.list_entries() == []
    assert gathered(shards)[2].tolist() == list(range(SAMPLES))


def test_computed_entries_are_read_the_next_time(shards):
    *_, computed, calls = gathered(shards, times=2)
    assert (computed, calls) == ([2, 0], SAMPLES)


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_compute_the_same_bits_as_one(processes, shards, tmp_path, world):
    features, labels, rows, *_ = gathered(shards)
    (main, *others) = processes(in_cache, tmp_path / "elsewhere", gathered, shards, world=world)
    assert main[0].equal(features)
    assert main[1].equal(labels)
    assert main[2].equal(rows)
    assert all(other[0] is None for other in others)
    assert main[4] + sum(other[1] for other in others) == SAMPLES  # each sample once


def in_cache(folder, function, *arguments):
    """For `processes`: a call with a cache of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MVSSL_CACHE", str(folder))
        return function(*arguments)


def test_there_may_be_more_processes_than_batches(processes, shards, tmp_path):
    first, second = processes(in_cache, tmp_path / "elsewhere", gathered, shards, 1, 64)
    assert len(first[0]) == SAMPLES
    assert {first[-1], second[-1]} == {0, SAMPLES}


def spoil(shards, *numbers):
    """Make the images of these samples of the first shard undecodable."""
    path = shards / "000000.tar"
    with tarfile.open(path) as archive:
        places = {m.name: m.offset_data for m in archive.getmembers()}
    with open(path, "r+b") as file:
        for number in numbers:
            file.seek(places[f"{number:08d}.png"])
            file.write(b"garbage!")


def test_undecodable_samples_are_left_out_on_all_processes(processes, shards, tmp_path):
    spoil(shards, 2, *range(7, 14), 19)  # the whole second batch among them
    features, labels, rows, *_ = gathered(shards)
    assert rows.tolist() == [i for i in range(SAMPLES) if i not in (2, *range(7, 14), 19)]
    assert labels.tolist() == [i % 4 for i in rows.tolist()]
    main, _ = processes(in_cache, tmp_path / "elsewhere", gathered, shards)
    assert main[0].equal(features)
    assert main[2].equal(rows)


def gone(folder):
    """For `processes`: return the error if all shards were truncated after they were opened."""
    own = small_runs.write_shards(folder / str(collectives.rank()))
    source = open_shards(str(own), own, COLUMNS, progress=False)
    for path in source.paths:
        os.truncate(path, 0)
    try:
        collect_features(source, [{"of": "gone"}], lambda *_: [{}], batch_size=7)
    except MvsslError as error:
        return error.code, str(error)
    return None


def test_no_usable_sample_is_an_error_on_every_process(processes, tmp_path):
    assert gone(tmp_path)[0] == 65
    result = processes(in_cache, tmp_path / "elsewhere", gone, tmp_path)
    assert [code for code, _ in result] == [65, 65]


def failing(folder, where):
    """For `processes`: process `where` fails in its second batch. Return each error, and the number of kept files."""
    source, seen = open_shards(str(folder), folder, COLUMNS, progress=False), []

    def compute(batch, numbers):
        seen.append(batch)
        if len(seen) == 2 and collectives.rank() == where:
            raise RecipeError("no such layer")
        return [{"x": batch.columns["image"].float().flatten(1)}]

    try:
        collect_features(source, [{"failing": where}], compute, batch_size=5)
    except MvsslError as error:
        return error.code, str(error), len(list(cache.folder().glob("*")))
    return None


@pytest.mark.parametrize("where", [0, 1])
def test_if_one_process_fails_all_raise_and_nothing_is_kept(processes, shards, tmp_path, where):
    first, second = processes(in_cache, tmp_path / "elsewhere", failing, shards, where)
    assert first[0] == second[0] == 64
    assert "no such layer" in first[1]
    assert "no such layer" in second[1]
    assert first[2] == 0


def test_an_entry_holds_the_usable_rows(shards):
    spoil(shards, 3)
    features, _, rows, *_ = gathered(shards, times=2)
    assert np.array_equal(rows.numpy(), [i for i in range(SAMPLES) if i != 3])
    assert len(features) == SAMPLES - 1


def diverged(folder, value):
    """For `processes`: a feature of sample 22 is `value`. Return the error, and the number of kept files."""
    source = open_shards(str(folder), folder, COLUMNS, progress=False)

    def compute(batch, numbers):
        x = batch.columns["image"].float().flatten(1)
        x[batch.index == 22, -1] = value
        return [{"rgb": x}]

    try:
        collect_features(source, [{"diverged": value}], compute, batch_size=7)
    except MvsslError as error:
        return error.code, str(error), len(list(cache.folder().glob("*")))
    return None


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_non_finite_feature_is_an_error_with_its_sample(processes, shards, tmp_path, value):
    message = (
        f"view rgb, sample 00000022 of {shards / '000001.tar'}: features are NaN or infinite; the encoder has diver"
    )
    code, text, kept = diverged(shards, value)
    assert (code, kept) == (65, 0)
    assert text.startswith(message)
    assert "--checkpoint STEP" in text
    first, second = processes(in_cache, tmp_path / "elsewhere", diverged, shards, value)
    assert first[0] == second[0] == 65
    assert message in first[1]
    assert first[2] == 0


def test_features_of_a_missing_sensor_may_be_nan(tmp_path):
    shards = small_runs.write_shards(tmp_path / "train", (9,), without_depth=3)
    columns = {"image": Column(field="png"), "depth": Column(field="depth.png")}
    source = open_shards(str(shards), shards, columns, missing="mask", progress=False)

    def compute(batch, numbers):
        blank = ~batch.present["depth"]
        return [{"depth": batch.columns["depth"].float().flatten(1).masked_fill(blank[:, None], torch.nan)}]

    assert (
        collect_features(source, [{"of": "depth"}], compute, batch_size=4).entries[0]["depth"].isnan().any(1).sum() == 3
    )


def test_entries_in_use_beyond_the_limit_are_kept_and_reported(shards, monkeypatch, capsys):
    monkeypatch.setenv("MVSSL_CACHE_LIMIT", "1e-6")
    source, of = open_shards(str(shards), shards, COLUMNS, progress=False), [{"of": "x"}, {"of": "y"}]
    made = collect_features(
        source, of, lambda batch, numbers: [{"x": batch.columns["label"]} for _ in numbers], batch_size=7
    )
    assert len(cache.list_entries()) == len(made.entries) == 2
    assert "features in use exceed the cache's 1e-06 GiB by 0.0 GiB" in capsys.readouterr().err
