"""Protocols of papers: the layers that they read, what they refuse, and their records."""

import importlib
import json
from types import SimpleNamespace

import pytest
import small_runs
import torch
from labelled_points import clusters
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import minmax_scale

from mvssl.checkpoints import store
from mvssl.data import open_shards
from mvssl.encoders import Widths
from mvssl.errors import RecipeError
from mvssl.evaluation import compare, evaluate, fewlabel, linear
from mvssl.evaluation.probes.classifiers import LINEARS, build_head
from mvssl.evaluation.probes.few_label import draw_shots, rows_of_classes
from mvssl.evaluation.protocols import PROTOCOLS, plan_protocol
from mvssl.evaluation.results.metrics import NotPossible, score_classifier
from mvssl.evaluation.subject import Subject
from mvssl.model import build_model
from mvssl.recipe import to_yaml
from mvssl.runs import load
from mvssl.views import build_views

DIM32 = {"name": "dim_conv32", "options": {"img_size": 8, "channels": [8, 8, 8], "hidden": 16, "code": 8}}


def make_run(folder, **changes):
    """An untrained run of the recipe of `small_runs`."""
    small_runs.write_shards(folder / "train")
    recipe = small_runs.recipe(folder, folder / "run", **changes)
    shapes = open_shards("train/*.tar", folder, recipe.data.columns, progress=False).shapes
    torch.manual_seed(0)
    model = build_model(recipe, build_views(recipe.views, shapes).shapes)
    (folder / "run").mkdir()
    (folder / "run" / "recipe.yaml").write_text(to_yaml(recipe))
    optimizer = torch.optim.AdamW(model.parameters())
    store.save_checkpoint(folder / "run", 1, model, optimizer, {"columns": shapes}, keep=1)
    return load.load_run(folder / "run")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("dim"), encoder=DIM32)


def layers(loaded, name: str) -> dict[str, str]:
    return {job.paper_layer or job.layer: job.layer for job in plan_protocol(name, Subject.of_run(loaded))}


def test_each_protocol_reads_the_layers_of_its_paper(loaded):
    assert layers(loaded, "dim") == {"conv": "1", "fc": "3", "Y": "vector"}  # maps 8@4, 8@2, 8@1, 16@1, and 8
    assert layers(loaded, "amdim") == {"global": "vector"}
    assert layers(loaded, "cmc") == {n: n for n in ("0", "1", "2", "3", "vector")}


def of_widths(*maps, vector: int):
    """Return a subject of one encoder with these maps."""
    encoder = SimpleNamespace(widths=Widths(maps, vector))
    return SimpleNamespace(model=SimpleNamespace(encoder_of=lambda view: encoder), views=SimpleNamespace(shapes=["x"]))


def test_a_last_map_that_equals_the_vector_is_measured_once():
    pooled = of_widths((64, 8, 8), (128, 4, 4), vector=128)
    assert PROTOCOLS["dim"].layers(pooled) == {"conv": "1", "Y": "vector"}
    assert list(PROTOCOLS["cmc"].layers(pooled)) == ["0", "1", "vector"]
    ending = of_widths((64, 7, 7), (128, 1, 1), vector=128)
    assert PROTOCOLS["dim"].layers(ending) == {"conv": "0", "Y": "vector"}
    assert list(PROTOCOLS["cmc"].layers(ending)) == ["0", "vector"]


def test_mib_reads_the_posterior_of_the_objective_that_has_one(tmp_path):
    several = [{"name": "cmc", "embed": 8}, {"name": "mib", "latent": 4}]
    assert layers(make_run(tmp_path, objective=several), "mib") == {"posterior mean": "head:mib"}


def test_a_protocol_that_does_not_fit_is_refused_with_an_alternative(loaded, tmp_path):
    with pytest.raises(RecipeError, match=r"protocol mib.*--probe fewlabel"):
        evaluate(loaded, protocol="mib")
    flat = make_run(tmp_path, encoder={"name": "mlp", "options": {"widths": [8]}})
    with pytest.raises(RecipeError, match=r"--protocol amdim"):
        evaluate(flat, protocol="dim")
    with pytest.raises(RecipeError, match=r"no protocol 'dym'; did you mean 'dim'\? \(accepted: dim, amdim,"):
        evaluate(loaded, protocol="dym")


@pytest.mark.parametrize("given", [{"probes": ["knn"]}, {"layer": "0"}])
def test_a_protocol_excludes_probes_and_a_layer(loaded, given):
    with pytest.raises(RecipeError, match="without --probe and --layer"):
        evaluate(loaded, protocol="dim", **given)


def test_epochs_shorten_only_protocols_that_train_by_epochs(loaded, tmp_path):
    with pytest.raises(RecipeError, match="--epochs shortens a --protocol"):
        evaluate(loaded, probes=["knn"], epochs=2)
    with pytest.raises(RecipeError, match=r"evaluate\.draws"):
        evaluate(make_run(tmp_path, objective={"name": "mib", "latent": 4}), protocol="mib", epochs=2)


def test_records_name_the_protocol_and_its_deviations(loaded, capsys):
    records = evaluate(loaded, protocol="amdim", epochs=1)
    assert {(r["probe"], r["encoder"]) for r in records if r["layer"] != "pixels"} == {
        (probe, encoder) for probe in ("linear", "mlp") for encoder in ("untrained", "trained")
    }
    for record in records:
        preset, protocol = record["protocol"]["preset"], record["protocol"]
        assert preset["name"] == "amdim"
        assert "arXiv:1906.00910" in preset["source"]
        assert preset["deviations"][-1] == "1 epoch in place of 120, the milestones in proportion"
        assert (protocol["epochs"], protocol["scaling"], protocol["chosen"]) == (1, "none", "fixed beforehand")
        assert (protocol["score_clip"], protocol["score_penalty"]) == (10, 1e-3)
    shown = capsys.readouterr().out
    assert "protocol amdim: accuracy in %" in shown
    assert "- 1 epoch in place of 120" in shown
    own = evaluate(loaded, probes=["linear"], show=False)
    with pytest.raises(RecipeError, match="preset"):
        compare(records[-1], next(r for r in own if r["encoder"] == "trained"))
    kept = json.loads((loaded.folder / "evaluation.json").read_text())
    assert kept == [*records, *own]


def test_deviations_name_the_data_of_the_papers_settings():
    assert "15 and 25 of 30 for ImageNet" in " ".join(PROTOCOLS["amdim"].deviations)
    assert "50 (for ResNet v3)" in " ".join(PROTOCOLS["cmc"].deviations)


def test_protocols_join_views_without_standardising_them(tmp_path, monkeypatch):
    """The first of two views has far larger features. Standardising would hide this."""
    views = {"a": {"from": "image", "size": 8, "normalize": "none"}, "b": {"from": "image", "size": 4}}
    given = make_run(tmp_path, views=views, encoder={"name": "test_resnet"})
    seen = []
    probe = importlib.import_module("mvssl.evaluation.probes.linear")  # its package shows the function under that name
    monkeypatch.setattr(probe, "classify", lambda a, b, *_, **__: seen.append(a.features) or some_result(b))
    records = evaluate(given, protocol="cmc", views=["a", "b", "all"], epochs=1, show=False)
    pixels = [r for r in records if r["encoder"] == "pixels"]
    assert [r["view"] for r in pixels] == ["a", "b", "all"]
    assert seen[2].equal(torch.cat(seen[:2], 1))
    assert pixels[2]["subject"]["features"] == "all views side by side"


def some_result(test):
    """Return some result."""
    return score_classifier(torch.zeros(len(test.labels), 2), test.labels, {})


def test_one_table_shows_all_layers_under_the_papers_names(loaded, capsys):
    jobs = plan_protocol("dim", Subject.of_run(loaded), 1)
    assert [(job.paper_layer, job.name) for job in jobs] == [
        (c, p) for c in ("conv", "fc", "Y") for p in ("mlp", "linear")
    ]
    evaluate(loaded, protocol="cmc", epochs=1, json_file=loaded.folder / "x.json")
    shown = capsys.readouterr().out
    assert shown.count("protocol cmc") == 1
    assert "vector" in shown


def test_cmcs_classifier_chooses_its_rate_on_held_out_samples():
    model = build_head(LINEARS["cmc"], 4096, 4)
    assert model[1].weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not model[1].bias.any()
    # small numbers, as pooled maps are, need a large rate
    small = clusters(400, 3)._replace(features=1e-3 * clusters(400, 3).features)
    found = linear(small, small, head="cmc", epochs=1)
    assert found.chosen["learning_rate"] == 30
    assert found.protocol["optimizer"].startswith("SGD, momentum 0.9")


def test_amdims_line_has_neither_dropout_nor_hidden_units():
    assert [type(layer).__name__ for layer in build_head(LINEARS["amdim"], 8, 3)] == ["Identity", "Linear"]


def test_mibs_few_labels_equal_scikit_learn_stopped_early():
    train, test = clusters(400, 2), clusters(200, 2, seed=1)
    found = fewlabel(train, test, shots=5, draws=2, head="mib")
    for number, value in enumerate(found.draws.tolist()):
        rows = draw_shots(rows_of_classes(train.labels), 5, 0, number)
        x, y = train.features[rows].double().numpy(), train.labels[rows].numpy()
        low, high = x.min(0), x.max(0)
        solver = LogisticRegression(solver="saga", tol=0.1, C=10, random_state=0).fit(minmax_scale(x), y)
        scaled = (test.features.double().numpy() - low) / (high - low)
        assert value == pytest.approx(solver.score(scaled, test.labels.numpy()), abs=0.02)


def test_mibs_classifier_refuses_several_labels_per_sample():
    train = clusters(40, 2)
    several = train._replace(labels=torch.nn.functional.one_hot(train.labels).float())
    with pytest.raises(NotPossible, match="one class per sample"):
        fewlabel(several, several, shots=1, head="mib")


def test_the_papers_own_length_is_no_deviation(loaded):
    for name, length in {"dim": 150, "amdim": 120, "cmc": 60}.items():
        own, same = (plan_protocol(name, Subject.of_run(loaded), epochs) for epochs in (None, length))
        assert own == same
        assert not any("in place of" in line for line in own[0].preset["deviations"])
    assert set(PROTOCOLS) == {"dim", "amdim", "cmc", "mib"}
