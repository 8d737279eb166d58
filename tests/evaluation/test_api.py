"""Evaluations of runs on scikit-learn's digits: options, errors, and files of records."""

import json
from dataclasses import replace
from functools import partial

import pytest
import small_runs
import torch
from digit_runs import make_run

from mvssl import export, report
from mvssl.checkpoints import store
from mvssl.errors import DataError, OutputError, RecipeError
from mvssl.evaluation import evaluate
from mvssl.evaluation.measurement import Measurement
from mvssl.evaluation.probes import PROBES
from mvssl.exporting.model_card import Card
from mvssl.recipe import Column
from mvssl.runs import load


def test_records_hold_metric_samples_step_and_protocol(loaded, capsys):
    records = evaluate(loaded)
    assert json.loads((loaded.folder / "evaluation.json").read_text()) == records
    assert len(records) == 3 * 4  # encoders x rows; both views are one picture, so one is measured
    for r in records:
        assert 0 <= r["value"] <= 1
        assert r["metric"] == "accuracy"
        assert r["n_test"] == r["n_train"]
        assert r["subject"]["step"] == 7
        assert r["protocol"]["data"]["test"]["fingerprint"]
        assert torch.__version__.startswith(r["versions"]["torch"])
        assert r["layer"] == ("pixels" if r["encoder"] == "pixels" else "vector")
    shown = capsys.readouterr().out
    assert "10 labels/class" in shown
    assert "untrained" in shown


def test_only_the_requested_view_is_measured(loaded):
    records = evaluate(loaded, probes=["knn"], views=["twice"], baselines=False, show=False)
    assert [(r["view"], r["encoder"]) for r in records] == [("twice", "trained")]
    with pytest.raises(RecipeError, match=r"no view 'twise'; did you mean 'twice'\? \(accepted: whole, twice, all\)"):
        evaluate(loaded, views=["twise"])


def test_layers_are_the_vector_the_head_and_the_maps(loaded):
    for layer, objective in {"vector": None, "head": "cmc", "head:cmc": "cmc", "0": None, 0: None}.items():
        record = evaluate(loaded, probes=["knn"], layer=layer, baselines=False, show=False)[0]
        assert record["layer"] == str(layer)
        assert record["subject"].get("objective") == objective
    with pytest.raises(RecipeError, match="accepted: vector, head, head:cmc, 0"):
        evaluate(loaded, layer="fc")


@pytest.mark.parametrize("given", [{"checkpoint": "best"}, {"trust": ["package"]}])
def test_an_open_run_is_refused_with_another_checkpoint_or_trust(loaded, tmp_path, given):
    for command in (evaluate, partial(export, destination=tmp_path / "out"), partial(report, out=tmp_path / "page")):
        with pytest.raises(RecipeError, match="load_run"):
            command(loaded, **given)


def test_an_unknown_probe_is_refused(loaded):
    with pytest.raises(RecipeError, match="did you mean 'knn'"):
        evaluate(loaded, probes=["kn"])


@pytest.mark.parametrize(
    ("data", "error", "hint"),
    [
        ({"label": None}, RecipeError, r"add for example label: \{field: cls\}"),
        ({"val": []}, RecipeError, "name them in data.val, or give --test SHARDS"),
        ({"label": {"field": "json", "path": "kind"}}, DataError, "columns.label: no sample has the field 'json'"),
    ],
)
def test_runs_without_labels_are_refused_with_a_hint(digits, tmp_path, data, error, hint):
    with pytest.raises(error, match=hint):
        evaluate(make_run(digits, tmp_path / "d", **data))


def test_other_training_shards_need_other_test_shards(loaded):
    with pytest.raises(RecipeError, match="both --data and --test"):
        evaluate(loaded, data="digits/train/*.tar")


def test_an_output_file_that_cannot_be_written_is_an_error(loaded, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="--json"):
        evaluate(loaded, probes=["knn"], baselines=False, show=False, json_file=tmp_path / "file" / "x.json")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [({"json_file": "FOLDER"}, OutputError, "it is a folder"), ({"views": ["twise"]}, RecipeError, "no view 'twise'")],
)
def test_errors_are_raised_before_features_are_computed(loaded, tmp_path, monkeypatch, given, error, message):
    monkeypatch.setattr(Measurement, "collect_splits", lambda *_: pytest.fail("features were computed"))
    with pytest.raises(error, match=message):
        evaluate(loaded, **{key: tmp_path if value == "FOLDER" else value for key, value in given.items()})


@pytest.mark.parametrize("json_file", [None, "new/x.json"])
def test_records_survive_an_interrupted_evaluation(digits, tmp_path, monkeypatch, json_file):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    run = make_run(digits, tmp_path / "g")
    before = evaluate(run, probes=["fewlabel"], show=False)
    file = tmp_path / json_file if json_file else run.folder / "evaluation.json"
    monkeypatch.setattr(PROBES["linear"], "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate(run, probes=["knn", "linear"], json_file=json_file and file)
    kept = json.loads(file.read_text())
    assert kept[: -1 if json_file is None else 0] == (before if json_file is None else [])
    assert (kept[-1]["probe"], kept[-1]["encoder"]) == ("knn", "pixels")


def test_records_replace_only_records_of_the_same_identity(digits, tmp_path):
    run = make_run(digits, tmp_path / "e")
    file = run.folder / "evaluation.json"
    few = evaluate(run, probes=["fewlabel"], show=False)
    knn = evaluate(run, probes=["knn"], show=False, baselines=False, seed=3)
    assert json.loads(file.read_text()) == [*few, *knn]
    evaluate(run, probes=["knn"], show=False)
    again = evaluate(run, probes=["knn"], show=False, batch_size=100)
    few += knn  # of another seed
    assert json.loads(file.read_text()) == [*few, *again]
    alone = evaluate(run, probes=["knn"], layer="0", baselines=False, show=False, json_file=tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == alone
    assert json.loads(file.read_text()) == [*few, *again]
    other = evaluate(run, probes=["knn"], show=False, data="digits/val/*.tar", test="digits/train/*.tar")
    assert json.loads(file.read_text()) == [*few, *again, *other]


def test_a_model_card_shows_the_records_of_its_own_step_and_data(digits, tmp_path):
    run = make_run(digits, tmp_path / "f")
    own = evaluate(run, probes=["knn"], show=False)
    evaluate(run, probes=["knn"], show=False, data="digits/val/*.tar", test="digits/train/*.tar")
    label = {"label": Column(field="cls", interpolation="nearest")}  # as if it were another one
    other = replace(run, recipe=run.recipe.model_copy(update={"data": run.recipe.data.model_copy(update=label)}))
    assert [r["protocol"]["label"] for r in evaluate(other, probes=["knn"], show=False)] != []
    assert Card.of_run(run, "whole,twice").results == own
    file = run.folder / "evaluation.json"
    whole = file.read_text()
    file.write_text(json.dumps([r for r in own if r["encoder"] != "trained"]))  # an evaluation that ended early
    assert Card.of_run(run, "whole,twice").results == []
    file.write_text(whole)
    store.save_checkpoint(
        run.folder,
        8,
        run.model,
        torch.optim.AdamW(run.model.parameters()),
        {"columns": {"image": [1, 8, 8]}},
        keep=2,
    )
    assert Card.of_run(load.load_run(run.folder), "whole,twice").results == []


def test_shards_with_other_channels_than_in_training_are_refused(loaded, tmp_path):
    small_runs.write_shards(tmp_path / "colour", counts=(20,), size=8)
    colour = str(tmp_path / "colour" / "*.tar")
    for shards in ({"test": colour, "data": colour}, {"other": colour, "probes": ["ood"]}):
        with pytest.raises(DataError, match=r"view whole is \[3, 8, 8\] in these shards, but \[1, 8, 8\] where"):
            evaluate(loaded, show=False, **shards)


def test_only_a_file_of_records_is_overwritten_through_a_link(loaded, tmp_path):
    other, real, link = tmp_path / "recipe.yaml", tmp_path / "real.json", tmp_path / "link.json"
    other.write_text("data: {}")
    link.symlink_to(real)
    options = {"probes": ["knn"], "views": ["whole"], "baselines": False, "show": False}
    with pytest.raises(OutputError, match="holds no records"):
        evaluate(loaded, **options, json_file=other)
    assert other.read_text() == "data: {}"
    for _ in range(2):
        evaluate(loaded, **options, json_file=link)
    assert link.is_symlink()
    assert len(json.loads(real.read_text())) == 1
