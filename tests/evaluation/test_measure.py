"""Whole evaluations on scikit-learn's digits: records, baselines, views, labels that are missing."""

import io
import json
from dataclasses import replace

import pytest
import small_runs
import torch
import webdataset
from PIL import Image

from mvssl.checkpoints import store
from mvssl.data import open_shards, pack
from mvssl.errors import DataError, MvsslError, OutputError, RecipeError
from mvssl.evaluation import api, compare, evaluate
from mvssl.evaluation.probes import PROBES
from mvssl.evaluation.subject import Subject
from mvssl.exporting.model_card import Card
from mvssl.model import build_model
from mvssl.recipe import Column, parse_recipe, to_yaml
from mvssl.runs import load
from mvssl.views import build_views

VIEWS = {
    "whole": {"from": "image", "size": 8, "normalize": {"mean": [0.3], "std": [0.4]}},
    "twice": {"from": "image", "size": 8, "normalize": {"mean": [0.3], "std": [0.4]}, "count": 2},
    "small": {"from": "image", "size": 4, "normalize": {"mean": [0.3], "std": [0.4]}},
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    pack("digits", root / "digits", progress=False)
    return root


def make_run(digits, folder, *, views=("whole", "twice"), moved=0.0, **data):
    """A run folder whose weights stand `moved` away from the start."""
    tables = {
        "data": {
            "root": str(digits), "train": "digits/val/*.tar", "val": "digits/val/*.tar", "workers": 0,
            "columns": {"image": {"field": "png"}}, "label": {"field": "cls"}, **data,
        },
        "views": {name: VIEWS[name] for name in views},
        "encoder": {"name": "test_resnet"},
        "objective": {"name": "cmc"},
        "evaluate": {"shots": [1, 10], "draws": 3},
        "train": {"steps": 1, "out": str(folder)},
    }  # fmt: skip
    recipe = parse_recipe({**tables, "data": {k: v for k, v in tables["data"].items() if v is not None}})
    columns = open_shards("digits/val/*.tar", digits, recipe.data.columns, progress=False).shapes
    torch.manual_seed(recipe.train.seed)
    model = build_model(recipe, build_views(recipe.views, columns).shapes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(moved * torch.randn_like(parameter))
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    store.save_checkpoint(folder, 7, model, torch.optim.AdamW(model.parameters()), {"columns": columns}, keep=2)
    return load.load_run(folder)


@pytest.fixture(scope="module")
def loaded(digits, tmp_path_factory):
    return make_run(digits, tmp_path_factory.mktemp("runs") / "a")


def of(records, **keys):
    return [r for r in records if all(r.get(key) == value for key, value in keys.items())]


def test_an_evaluation_says_everything_once(loaded, capsys):
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


def test_a_second_evaluation_computes_no_features_and_finds_the_same(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MVSSL_CACHE", str(tmp_path / "cache"))
    found = make_run(digits, tmp_path / "again", moved=0.05)
    first = evaluate(found, probes=["knn"], json_file=tmp_path / "x.json")
    # three encoders and labels of the train shards; the test shards are the same
    assert "features: 4 computed, 4 from the cache" in capsys.readouterr().err
    both = evaluate(found, probes=["knn", "linear"], json_file=tmp_path / "x.json")
    assert "features: 0 computed, 8 from the cache" in capsys.readouterr().err
    assert of(both, probe="knn") == first
    evaluate(found, probes=["knn"], layer="head", json_file=tmp_path / "x.json")
    assert "features: 2 computed, 6 from the cache" in capsys.readouterr().err  # of two encoders


def evaluated(given, folder):
    """For `processes`: the records of a run, with a cache of this call's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MVSSL_CACHE", str(folder / "cache"))
        return evaluate(load.load_run(given), probes=["knn", "fewlabel"], show=False, json_file=folder / "x.json")


def test_two_processes_find_what_one_finds(digits, tmp_path, processes):
    given = make_run(digits, tmp_path / "two", views=("whole", "small"), moved=0.05).folder
    one = evaluated(given, tmp_path / "a")
    main, other = processes(evaluated, given, tmp_path / "b")
    assert main == one
    assert other == []


def refused(given, folder):
    """For `processes`: what a run without a label says."""
    with pytest.raises(MvsslError) as error:
        evaluated(given, folder)
    return str(error.value)


def test_samples_without_a_label_are_told_on_every_process_and_none_waits_for_the_others(digits, tmp_path, processes):
    unknown, picture = {"field": "json", "path": "kind"}, io.BytesIO()
    Image.new("L", (8, 8)).save(picture, "png")
    (tmp_path / "no").mkdir()
    with webdataset.TarWriter(str(tmp_path / "no" / "000000.tar")) as writer:
        for key in range(6):
            writer.write({"__key__": f"{key}", "png": picture.getvalue(), "json": b'{"kind": -1}'})
    changed = {"label": unknown, "train": f"{tmp_path}/no/*.tar", "val": f"{tmp_path}/no/*.tar"}
    given = make_run(digits, tmp_path / "run", **changed).folder
    for told in processes(refused, given, tmp_path / "a"):
        assert "no sample with a label" in told


def test_pixels_are_easier_than_chance_and_the_start_is_the_start(loaded):
    """A run whose weights are those it began with is its own untrained encoder: every gain is exactly 0."""
    records = evaluate(loaded, probes=["knn", "fewlabel"], show=False)
    assert of(records, probe="knn", encoder="pixels")[0]["value"] > 0.9
    assert all(r["gain"]["untrained"]["difference"] == 0 for r in of(records, encoder="trained"))
    torch.manual_seed(99)
    for name, parameter in Subject.of_run(loaded).start().state_dict().items():
        assert parameter.equal(loaded.model.state_dict()[name])


def test_gains_are_paired_and_follow_from_the_records(digits, tmp_path):
    records = evaluate(make_run(digits, tmp_path / "b", moved=0.05), probes=["fewlabel"], show=False)
    for shots in ("1 label/class", "10 labels/class"):
        ahead, behind = (of(records, what=shots, encoder=e)[0] for e in ("trained", "untrained"))
        found = compare(ahead, behind)
        assert found.difference == pytest.approx(ahead["gain"]["untrained"]["difference"])
        assert found.standard_error >= ahead["gain"]["untrained"]["standard_error"]
        assert found.difference != 0


def test_an_evaluation_leaves_the_random_generator_and_the_weights_alone(loaded):
    state, weights = torch.get_rng_state(), {k: v.clone() for k, v in loaded.model.state_dict().items()}
    evaluate(loaded, probes=["knn"], show=False)
    assert torch.get_rng_state().equal(state)
    assert all(v.equal(weights[k]) for k, v in loaded.model.state_dict().items())


def test_views_are_measured_each_and_all_together(digits, tmp_path):
    records = evaluate(make_run(digits, tmp_path / "c", views=("whole", "small")), probes=["knn"], show=False)
    widths = {r["view"]: r["subject"]["features"] for r in of(records, encoder="pixels")}
    assert widths == {
        "whole": "1x8x8 flattened",
        "small": "1x4x4 flattened",
        "all": "all views side by side, each standardised by train",
    }
    assert of(records, view="small", encoder="pixels")[0]["value"] < 0.99


def test_a_view_may_be_asked_for_by_name(loaded):
    records = evaluate(loaded, probes=["knn"], views=["twice"], baselines=False, show=False)
    assert [(r["view"], r["encoder"]) for r in records] == [("twice", "trained")]
    with pytest.raises(RecipeError, match=r"no view 'twise'; did you mean 'twice'\? \(accepted: whole, twice, all\)"):
        evaluate(loaded, views=["twise"])


def test_layers_are_the_vector_the_head_and_the_maps(loaded):
    for layer, objective in {"vector": None, "head": "cmc", "head:cmc": "cmc", "0": None}.items():
        record = evaluate(loaded, probes=["knn"], layer=layer, baselines=False, show=False)[0]
        assert record["layer"] == layer
        assert record["subject"].get("objective") == objective
    with pytest.raises(RecipeError, match="accepted: vector, head, head:cmc, 0"):
        evaluate(loaded, layer="fc")


def test_a_probe_that_does_not_exist_is_refused(loaded):
    with pytest.raises(RecipeError, match="did you mean 'knn'"):
        evaluate(loaded, probes=["kn"])


@pytest.mark.parametrize(
    ("data", "error", "way_out"),
    [
        ({"label": None}, RecipeError, r"add for example label: \{field: cls\}"),
        ({"val": []}, RecipeError, "name them in data.val, or give --test SHARDS"),
        ({"label": {"field": "json", "path": "kind"}}, DataError, "columns.label: no sample has the field 'json'"),
    ],
)
def test_runs_without_labels_say_the_way_out(digits, tmp_path, data, error, way_out):
    with pytest.raises(error, match=way_out):
        evaluate(make_run(digits, tmp_path / "d", **data))


def test_other_training_shards_need_other_test_shards(loaded):
    with pytest.raises(RecipeError, match="both --data and --test"):
        evaluate(loaded, data="digits/train/*.tar")


def test_a_file_that_cannot_be_written_is_named(loaded, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="--json FILE"):
        evaluate(loaded, probes=["knn"], baselines=False, show=False, json_file=tmp_path / "file" / "x.json")


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [({"json_file": "FOLDER"}, OutputError, "it is a folder"), ({"views": ["twise"]}, RecipeError, "no view 'twise'")],
)
def test_what_is_wrong_is_told_before_features_are_computed(loaded, tmp_path, monkeypatch, given, error, said):
    monkeypatch.setattr(api, "collect_splits", lambda *_: pytest.fail("features were computed"))
    with pytest.raises(error, match=said):
        evaluate(loaded, **{key: tmp_path if value == "FOLDER" else value for key, value in given.items()})


@pytest.mark.parametrize("json_file", [None, "new/x.json"])
def test_what_was_measured_outlives_what_ends_the_evaluation(digits, tmp_path, monkeypatch, json_file):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    found = make_run(digits, tmp_path / "g")
    before = evaluate(found, probes=["fewlabel"], show=False)
    file = tmp_path / json_file if json_file else found.folder / "evaluation.json"
    monkeypatch.setattr(PROBES["linear"], "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate(found, probes=["knn", "linear"], json_file=json_file and file)
    kept = json.loads(file.read_text())
    assert kept[: -1 if json_file is None else 0] == (before if json_file is None else [])
    assert (kept[-1]["probe"], kept[-1]["encoder"]) == ("knn", "pixels")


def test_records_take_the_place_of_earlier_ones_of_the_same_and_leave_the_others(digits, tmp_path):
    found = make_run(digits, tmp_path / "e")
    file = found.folder / "evaluation.json"
    few = evaluate(found, probes=["fewlabel"], show=False)
    knn = evaluate(found, probes=["knn"], show=False, baselines=False, seed=3)
    assert json.loads(file.read_text()) == [*few, *knn]
    evaluate(found, probes=["knn"], show=False)
    again = evaluate(found, probes=["knn"], show=False, batch_size=100)
    few += knn  # of another seed
    assert json.loads(file.read_text()) == [*few, *again]
    alone = evaluate(found, probes=["knn"], layer="0", baselines=False, show=False, json_file=tmp_path / "x.json")
    assert json.loads((tmp_path / "x.json").read_text()) == alone
    assert json.loads(file.read_text()) == [*few, *again]
    other = evaluate(found, probes=["knn"], show=False, data="digits/val/*.tar", test="digits/train/*.tar")
    assert json.loads(file.read_text()) == [*few, *again, *other]


def test_a_model_card_shows_what_its_weights_scored_on_the_recipes_own_data(digits, tmp_path):
    found = make_run(digits, tmp_path / "f")
    own = evaluate(found, probes=["knn"], show=False)
    evaluate(found, probes=["knn"], show=False, data="digits/val/*.tar", test="digits/train/*.tar")
    label = {"label": Column(field="cls", interpolation="nearest")}  # as if it were another one
    other = replace(found, recipe=found.recipe.model_copy(update={"data": found.recipe.data.model_copy(update=label)}))
    assert [r["protocol"]["label"] for r in evaluate(other, probes=["knn"], show=False)] != []
    assert Card.of_run(found, "whole,twice").results == own
    file = found.folder / "evaluation.json"
    whole = file.read_text()
    file.write_text(json.dumps([r for r in own if r["encoder"] != "trained"]))  # an evaluation that ended early
    assert Card.of_run(found, "whole,twice").results == []
    file.write_text(whole)
    store.save_checkpoint(
        found.folder,
        8,
        found.model,
        torch.optim.AdamW(found.model.parameters()),
        {"columns": {"image": [1, 8, 8]}},
        keep=2,
    )
    assert Card.of_run(load.load_run(found.folder), "whole,twice").results == []


def test_shards_with_other_channels_than_the_encoder_learned_are_refused(loaded, tmp_path):
    small_runs.write_shards(tmp_path / "colour", counts=(20,), size=8)
    colour = str(tmp_path / "colour" / "*.tar")
    for shards in ({"test": colour, "data": colour}, {"other": colour, "probes": ["ood"]}):
        with pytest.raises(DataError, match=r"view whole is \[3, 8, 8\] in these shards, but \[1, 8, 8\] where"):
            evaluate(loaded, show=False, **shards)


def test_records_are_written_over_records_and_nothing_else_and_links_are_followed(loaded, tmp_path):
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
