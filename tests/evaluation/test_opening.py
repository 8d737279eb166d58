"""Runs, exports and timm models are opened and measured in the same way."""

import json

import pytest
import small_runs
import torch
import yaml
from safetensors.torch import save_file

from mvssl.checkpoints import store
from mvssl.data import open_shards
from mvssl.errors import DataError, RecipeError
from mvssl.evaluation import evaluate, open_subject
from mvssl.exporting.exporting import export
from mvssl.model import build_model
from mvssl.recipe import parse_recipe, to_yaml
from mvssl.runs.load import load_run
from mvssl.views import build_views, resolve_statistics

SMALL = {"img_size": 8, "channels": [8, 8, 8], "hidden": 16, "code": 8}
TWO = {
    "views": {
        "a": {"from": "image", "normalize": "data", "count": 2},
        "b": {"from": "depth", "normalize": "data", "geometry": "a", "count": 2},
    },
    "encoder": {"a": {"name": "dim_conv32", "options": SMALL}, "b": {"name": "dim_conv32", "options": SMALL}},
}


def of(records, **keys):
    return [r for r in records if all(r.get(key) == value for key, value in keys.items())]


@pytest.fixture
def recipe(tmp_path):
    """A file with a recipe of two sensors, and its shards."""
    small_runs.write_shards(tmp_path / "train")
    given = small_runs.tables(tmp_path, tmp_path / "run", **TWO)
    given["data"]["columns"]["depth"] = {"field": "depth.png"}
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(given))
    return file


def make_run(recipe, folder):
    """A run whose weights differ from its start weights."""
    given = parse_recipe(yaml.safe_load(recipe.read_text()))
    source = open_shards(given.data.train, given.data.folder, given.data.columns, progress=False)
    resolved = given.model_copy(update={"views": resolve_statistics(given.views, source.shapes, source)})
    model = build_model(resolved, build_views(resolved.views, source.shapes).shapes)
    folder.mkdir()
    (folder / "recipe.yaml").write_text(to_yaml(resolved))
    store.save_checkpoint(folder, 5, model, torch.optim.AdamW(model.parameters()), {"columns": source.shapes}, keep=2)
    return load_run(folder)


def test_an_export_and_its_run_have_equal_scores(recipe, tmp_path):
    run = make_run(recipe, tmp_path / "run")
    export(run, tmp_path / "out")
    theirs = evaluate(run, probes=["knn"], show=False)
    subject = open_subject(str(tmp_path / "out"), recipe=recipe)
    ours = evaluate(subject, probes=["knn"], show=False)
    assert [(r["view"], r["value"]) for r in of(ours, encoder="trained")] == [
        (r["view"], r["value"]) for r in of(theirs, encoder="trained")
    ]
    assert ours[-1]["subject"]["kind"] == "export"
    assert ours[-1]["subject"]["step"] == 5
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_an_exported_encoder_is_measured_on_its_own_views(recipe, tmp_path):
    export(make_run(recipe, tmp_path / "run"), tmp_path / "out")
    result = evaluate(open_subject(str(tmp_path / "out" / "b"), recipe=recipe), probes=["knn"], show=False)
    assert {r["view"] for r in result} == {"b"}


def test_an_export_keeps_the_normalisation_that_it_was_trained_with(recipe, tmp_path):
    run = make_run(recipe, tmp_path / "run")
    export(run, tmp_path / "out")
    config = tmp_path / "out" / "a" / "config.json"
    changed = json.loads(config.read_text())
    changed["pretrained_cfg"]["mean"] = [7.0, 8.0, 9.0]
    config.write_text(json.dumps(changed))
    subject = open_subject(str(tmp_path / "out"), recipe=recipe)
    assert subject.views.view("a").mean.tolist() == [7.0, 8.0, 9.0]
    assert subject.views.view("b").mean.tolist() == pytest.approx(run.views.view("b").mean.tolist())


def test_a_timm_model_is_untrained_or_has_the_named_weights(recipe, tmp_path):
    plain = open_subject("timm:test_resnet", recipe=recipe)
    records = evaluate(plain, probes=["knn"], show=False)
    assert {r["encoder"] for r in records} == {"pixels", "untrained"}
    assert all(not r["gain"] for r in records)
    model = plain.model.encoder_of("a").model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    save_file(model.state_dict(), tmp_path / "peer.safetensors")
    peer = open_subject("timm:test_resnet", recipe=recipe, weights=str(tmp_path / "peer.safetensors"), views=["a"])
    assert peer.model.encoder_of("a").model.state_dict()["conv1.0.weight"].equal(model.state_dict()["conv1.0.weight"])
    assert {r["encoder"] for r in evaluate(peer, probes=["knn"], show=False)} == {"pixels", "untrained", "trained"}


def test_a_timm_model_is_built_for_each_number_of_channels(recipe):
    subject = open_subject("timm:test_resnet", recipe=recipe)
    assert {group: encoder.shape for group, encoder in subject.model.encoders.items()} == {
        "a": (3, 8, 8),
        "b": (1, 8, 8),
    }


def test_views_may_be_chosen_by_name(recipe):
    assert list(open_subject("timm:test_resnet", recipe=recipe, views=["b", "all"]).model.encoders) == ["b"]


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        ("nowhere", {}, DataError, "not a run folder"),
        ("timm:test_resnet", {"recipe": None}, RecipeError, "--recipe RECIPE"),
        ("timm:resnet19", {}, RecipeError, "did you mean"),
        ("timm:test_resnet", {"views": ["c"]}, RecipeError, "no view 'c'"),
        ("timm:test_resnet", {"weights": "nowhere"}, RecipeError, "neither a run"),
        ("RUN", {"weights": "x"}, RecipeError, "--weights are for timm:NAME"),
        ("RUN", {}, RecipeError, "--recipe is for exports and timm:NAME"),
        (
            "RUN",
            {"recipe": None, "overrides": ["evalute.draws=3"]},
            RecipeError,
            "evalute; did you mean 'evaluate'",
        ),
        ("RUN", {"recipe": None, "overrides": ["objective.temperature=1"]}, RecipeError, "objective.temperature=1"),
        ("EXPORT", {"overrides": ["views.a.channels=[0]"]}, RecipeError, "fits none of the views"),
    ],
)
def test_a_subject_that_cannot_be_opened_is_refused(recipe, tmp_path, given, options, error, message):
    if given == "RUN":
        make_run(recipe, tmp_path / "RUN")
        given = str(tmp_path / "RUN")
    if given == "EXPORT":
        export(make_run(recipe, tmp_path / "RUN"), tmp_path / "out")
        given = str(tmp_path / "out" / "a")
    with pytest.raises(error, match=message):
        open_subject(given, **{"recipe": recipe, **options})


def test_a_run_may_be_evaluated_with_other_settings(recipe, tmp_path):
    make_run(recipe, tmp_path / "run")
    subject = open_subject(str(tmp_path / "run"), overrides=["evaluate.draws=3", "evaluate.shots=[1]"])
    result = evaluate(subject, probes=["fewlabel"], views=["a"], baselines=False, show=False)
    assert [r["protocol"]["draws"] for r in result] == [3]


def test_a_folder_that_is_not_of_timm_is_refused(recipe, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "config.json").write_text("{}")
    (tmp_path / "x" / "model.safetensors").write_text("")
    with pytest.raises(DataError, match=r"config\.json"):
        open_subject(str(tmp_path / "x"), recipe=recipe)


@pytest.mark.parametrize(
    "config",
    [
        "[]", "{", '{"architecture": 3}', '{"architecture": "resnet18", "pretrained_cfg": []}',
        '{"architecture": "resnet18", "pretrained_cfg": {"mean": 3}, "mvssl": {"views": {}}}',
        '{"architecture": "resnet18", "pretrained_cfg": {"input_size": 5}}',
        '{"architecture": "resnet18", "mvssl": {"views": 3}}',
    ],
)  # fmt: skip
def test_a_config_that_is_not_of_timm_is_named_in_the_error(recipe, tmp_path, config):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "config.json").write_text(config)
    (tmp_path / "x" / "model.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match=r"x/config\.json"):
        open_subject(str(tmp_path / "x"), recipe=recipe)
