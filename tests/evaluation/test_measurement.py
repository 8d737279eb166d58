"""Evaluations of runs on scikit-learn's digits: features, processes, views and gains."""

import io

import pytest
import torch
import webdataset
from digit_runs import make_run, select
from PIL import Image

from mvssl.errors import MvsslError
from mvssl.evaluation import compare, evaluate
from mvssl.evaluation.subject import Subject
from mvssl.runs import load


def test_a_second_evaluation_reads_all_features_from_the_cache(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MVSSL_CACHE", str(tmp_path / "cache"))
    run = make_run(digits, tmp_path / "again", moved=0.05)
    first = evaluate(run, probes=["knn"], json_file=tmp_path / "x.json")
    # three encoders and labels of the train shards; the test shards are the same
    assert "features: 4 computed, 4 from the cache" in capsys.readouterr().err
    both = evaluate(run, probes=["knn", "linear"], json_file=tmp_path / "x.json")
    assert "features: 0 computed, 8 from the cache" in capsys.readouterr().err
    assert select(both, probe="knn") == first
    evaluate(run, probes=["knn"], layer="head", json_file=tmp_path / "x.json")
    assert "features: 2 computed, 6 from the cache" in capsys.readouterr().err  # of two encoders


def evaluated(given, folder):
    """For `processes`: return the records of a run, computed with a new cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MVSSL_CACHE", str(folder / "cache"))
        return evaluate(load.load_run(given), probes=["knn", "fewlabel"], show=False, json_file=folder / "x.json")


def test_two_processes_return_the_records_of_one(digits, tmp_path, processes):
    given = make_run(digits, tmp_path / "two", views=("whole", "small"), moved=0.05).folder
    one = evaluated(given, tmp_path / "a")
    main, other = processes(evaluated, given, tmp_path / "b")
    assert main == one
    assert other == []


def error_of(given, folder):
    """For `processes`: return the error of a run without labels."""
    with pytest.raises(MvsslError) as error:
        evaluated(given, folder)
    return str(error.value)


def test_missing_labels_are_an_error_on_every_process(digits, tmp_path, processes):
    unknown, picture = {"field": "json", "path": "kind"}, io.BytesIO()
    Image.new("L", (8, 8)).save(picture, "png")
    (tmp_path / "no").mkdir()
    with webdataset.TarWriter(str(tmp_path / "no" / "000000.tar")) as writer:
        for key in range(6):
            writer.write({"__key__": f"{key}", "png": picture.getvalue(), "json": b'{"kind": -1}'})
    changed = {"label": unknown, "train": f"{tmp_path}/no/*.tar", "val": f"{tmp_path}/no/*.tar"}
    given = make_run(digits, tmp_path / "run", **changed).folder
    for message in processes(error_of, given, tmp_path / "a"):
        assert "no sample with a label" in message


def test_a_run_with_its_start_weights_has_no_gain(loaded):
    """The trained and the untrained encoder are equal, so every gain is exactly 0."""
    records = evaluate(loaded, probes=["knn", "fewlabel"], show=False)
    assert select(records, probe="knn", encoder="pixels")[0]["value"] > 0.9
    assert all(r["gain"]["untrained"]["difference"] == 0 for r in select(records, encoder="trained"))
    torch.manual_seed(99)
    for name, parameter in Subject.of_run(loaded).start().state_dict().items():
        assert parameter.equal(loaded.model.state_dict()[name])


def test_gains_are_paired_and_follow_from_the_records(digits, tmp_path):
    records = evaluate(make_run(digits, tmp_path / "b", moved=0.05), probes=["fewlabel"], show=False)
    for shots in ("1 label/class", "10 labels/class"):
        ahead, behind = (select(records, what=shots, encoder=e)[0] for e in ("trained", "untrained"))
        result = compare(ahead, behind)
        assert result.difference == pytest.approx(ahead["gain"]["untrained"]["difference"])
        assert result.standard_error >= ahead["gain"]["untrained"]["standard_error"]
        assert result.difference != 0


def test_an_evaluation_changes_neither_random_state_nor_weights(loaded):
    state, weights = torch.get_rng_state(), {k: v.clone() for k, v in loaded.model.state_dict().items()}
    evaluate(loaded, probes=["knn"], show=False)
    assert torch.get_rng_state().equal(state)
    assert all(v.equal(weights[k]) for k, v in loaded.model.state_dict().items())


def test_every_view_and_all_views_together_are_measured(digits, tmp_path):
    records = evaluate(make_run(digits, tmp_path / "c", views=("whole", "small")), probes=["knn"], show=False)
    widths = {r["view"]: r["subject"]["features"] for r in select(records, encoder="pixels")}
    assert widths == {
        "whole": "1x8x8 flattened",
        "small": "1x4x4 flattened",
        "all": "all views side by side, each standardised by train",
    }
    assert select(records, view="small", encoder="pixels")[0]["value"] < 0.99
