"""Labels that are missing, -1 and 1, or no classes: an evaluation reports what it leaves out, or why it ends."""

import io

import numpy as np
import pytest
import small_runs
import webdataset

from mvssl import train
from mvssl.data import open_shards
from mvssl.errors import DataError, StorageError
from mvssl.evaluation import api, evaluate
from mvssl.evaluation.probes import PROBES
from mvssl.evaluation.results.metrics import Metric, Result
from mvssl.monitoring import held_out
from mvssl.pipeline.afterwards import check_then_inputs
from mvssl.recipe import Recipe
from mvssl.reporting import report
from mvssl.runs.load import LoadedRun, load_run


def shards(root, labels, split="train", field="y.npy"):
    """Write a shard with an image for each label; None: no label."""
    numbers = np.random.default_rng(0)
    (root / split).mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(root / split / "000000.tar")) as writer:
        for key, label in enumerate(labels):
            sample = {"__key__": f"{key:04d}", "png": small_runs._png(numbers.integers(0, 255, (8, 8, 3)))}
            if label is not None:
                held = io.BytesIO()
                np.save(held, np.asarray(label))
                sample[field] = held.getvalue()
            writer.write(sample)
    return root


def recipe(root, out, **changes) -> Recipe:
    label = {"field": "y.npy"}
    return small_runs.recipe(root, out, data__label=label, train__steps=2, train__save_every=2, **changes)


def trained(root, out, **changes) -> LoadedRun:
    train(recipe(root, out, **changes))
    return load_run(out)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MVSSL_CACHE", str(tmp_path / "cache"))
    held_out._warn_once.cache_clear()


def test_labels_of_minus_one_and_one_are_refused_with_advice(tmp_path, capsys):
    run = trained(shards(tmp_path, [2 * (i % 2) - 1 for i in range(24)]), tmp_path / "run")
    with pytest.raises(DataError, match=r"labels are -1 and 1, and -1 reads as .no label.: write 0 and 1"):
        evaluate(run, probes=["knn"], baselines=False)
    assert "train: 12 of 24 samples left out: without label" in capsys.readouterr().err
    assert len(evaluate(run, probes=["spectrum"], baselines=False)) == 3  # which needs no label


def test_one_class_is_reported_and_every_classifier_refused(tmp_path, capsys):
    run = trained(shards(tmp_path, [3] * 24), tmp_path / "run")
    with pytest.raises(DataError, match="nothing could be measured: knn: train has one class"):
        evaluate(run, probes=["knn", "linear"], baselines=False)
    assert "train: one class (3)\ntest: one class (3)" in capsys.readouterr().err


def test_classes_that_train_or_test_lacks_are_named(tmp_path, capsys):
    shards(tmp_path, [0, 1, 2, -1, -1, 2] * 4)
    shards(tmp_path, [0, 1, 7] * 8, "val")
    run = trained(tmp_path, tmp_path / "run", data__val="val/*.tar")
    evaluate(run, probes=["knn"], baselines=False, show=False)
    shown = capsys.readouterr().err
    assert "train: 8 of 24 samples left out: without label" in shown
    assert "train: 1 class (2) of which test has no sample" in shown
    assert "test: 1 class (7) of which train has no sample" in shown


def test_labels_that_are_not_classes_only_stop_probes_with_labels(tmp_path, capsys):
    shards(tmp_path, np.linspace(0, 1, 24, dtype=np.float32))
    run = trained(tmp_path, tmp_path / "run", train__check_every=1)
    assert capsys.readouterr().err.count("the labels are no classes, so checks go without kNN") == 1
    assert "val/loss" in next(iter(small_runs.checks(tmp_path / "run").values()))
    for given in ({}, {"data": "train/*.tar", "test": "train/*.tar"}):
        with pytest.raises(DataError, match=r"data.label: 0\.\d+ is no class"):
            evaluate(run, probes=["knn"], **given)
    assert not (tmp_path / "cache" / "features").exists()  # refused before features are computed
    assert len(evaluate(run, probes=["spectrum"], baselines=False)) == 3
    assert report(tmp_path / "run").file.is_file()


def test_labels_that_are_not_classes_are_refused_before_training(tmp_path):
    shards(tmp_path, np.linspace(0, 1, 24, dtype=np.float32))
    check_then_inputs(recipe(tmp_path, tmp_path / "run", train__then=["report"]))
    with pytest.raises(DataError, match="is no class"):
        check_then_inputs(recipe(tmp_path, tmp_path / "run", train__then=["evaluate"]))


def test_a_probe_out_of_memory_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    run = trained(shards(tmp_path, [0, 1, 2] * 8), tmp_path / "run")

    def raising(error):
        def work(*_, **__):
            raise error

        return work

    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 b")):
        monkeypatch.setattr(PROBES["linear"], "run", (raising(error)))
        assert {r["probe"] for r in evaluate(run, probes=["knn", "linear"], baselines=False)} == {"knn"}
        assert "left out: linear of trained on image: it needs more memory" in " ".join(capsys.readouterr().out.split())
        with monkeypatch.context() as patch:
            patch.setattr(api, "encoders_under_test", raising(error))
            with pytest.raises(StorageError, match=r"out of memory.*--layer") as raised:
                evaluate(run, probes=["knn"])
        assert raised.value.code == 74
    monkeypatch.setattr(PROBES["linear"], "run", (raising(RuntimeError("something else"))))
    with pytest.raises(RuntimeError, match="something else"):
        evaluate(run, probes=["linear"])


def test_a_value_that_is_not_a_number_is_left_out_and_reported(tmp_path, monkeypatch, capsys):
    run = trained(shards(tmp_path, [0, 1, 2] * 8), tmp_path / "run")
    monkeypatch.setattr(PROBES["linear"], "run", (lambda *_: Result(float("nan"), Metric("x"), {})))
    assert {r["probe"] for r in evaluate(run, probes=["knn", "linear"], baselines=False)} == {"knn"}
    assert "left out: linear of trained on image: nan" in " ".join(capsys.readouterr().out.split())
    assert "NaN" not in (tmp_path / "run" / "evaluation.json").read_text()


def test_samples_without_a_label_are_kept_if_no_label_is_read(tmp_path):
    shards(tmp_path, [0, None, 1] * 8)
    columns = recipe(tmp_path, tmp_path / "run").data.columns
    assert len(open_shards("train/*.tar", tmp_path, columns, progress=False)) == 24
