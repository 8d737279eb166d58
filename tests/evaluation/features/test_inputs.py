"""The inputs of probes, for a run of two views with labels, segments, and samples of another distribution."""

import importlib
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import small_runs
import torch
import webdataset
from PIL import Image

from mvssl import train
from mvssl.checkpoints import store
from mvssl.data import open_shards
from mvssl.errors import DataError
from mvssl.evaluation import evaluate
from mvssl.evaluation.features.inputs import distinct_views, refuse_other_sides
from mvssl.evaluation.features.splits import Split
from mvssl.evaluation.measurement import Measurement
from mvssl.evaluation.probes import PROBES
from mvssl.model import build_model
from mvssl.recipe import Finetune, parse_recipe, to_yaml
from mvssl.runs import load
from mvssl.views import build_views

FAR = {"mean": [0.0], "std": [1.0]}


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array.astype(np.uint8)).save(file, "png")
    return file.getvalue()


def write(folder, n: int, seed: int, shift: int = 0) -> None:
    """Pictures of four quarters, each bright or dark by its class; the label is the class of the first quarter."""
    numbers = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    with webdataset.TarWriter(str(folder / "000000.tar")) as writer:
        for key in range(n):
            classes = numbers.integers(0, 2, (2, 2))
            seg = classes.repeat(4, 0).repeat(4, 1)
            bright = 40 + shift + 150 * seg + numbers.integers(0, 20, (8, 8))
            seg[0, 0] = 9  # not labelled
            sample = {"__key__": f"{key:08d}", "png": png(np.clip(bright, 0, 255)), "seg.png": png(seg)}
            sample["depth.png"] = png(255 - np.clip(bright, 0, 255))
            writer.write(sample | {"cls": str(classes[0, 0]).encode()})


QUICK = {
    "linear": {"epochs": 1, "least_steps": 2},
    "sensors": {"epochs": 1, "least_steps": 2},
    "mlp": {"epochs": 1, "least_steps": 2},
    "ndm": {"steps": 2},
    "information": {"steps": 2},
    "inputs": {"steps": 2},
    "cluster": {"seeds": 2},
    "fewlabel": {"shots": 1, "draws": 2},
    "finetune": {"shots": 8, "epochs": 1, "augment": False, "least_steps": 60},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Every probe of the table, with few steps."""
    for name, options in QUICK.items():
        monkeypatch.setattr(PROBES[name], "settings", lambda evaluate, options=options: [options])
    monkeypatch.setattr(importlib.import_module("mvssl.evaluation.probes.dense"), "SCHEDULE", DENSE)


DENSE = {"epochs": 1, "batch_size": 128, "least_steps": 60}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write(root / "train", 48, 0)
    write(root / "val", 24, 1)
    write(root / "other", 20, 2, shift=60)
    folder = tmp_path_factory.mktemp("run")
    recipe = parse_recipe(
        {
            "data": {
                "root": str(root), "train": "train/*.tar", "val": "val/*.tar", "workers": 0,
                "columns": {"image": {"field": "png"}, "depth": {"field": "depth.png"}}, "label": {"field": "cls"},
            },
            "views": {name: {"from": name, "size": 8, "normalize": FAR} for name in ("image", "depth")},
            "encoder": {"name": "test_resnet"},
            "objective": {"name": "cmc", "embed": 8},
            "evaluate": {
                "segments": {"field": "seg.png"}, "ignore": 9,
            },
            "train": {"steps": 1, "out": str(folder)},
        }
    )  # fmt: skip
    shapes = open_shards("train/*.tar", root, recipe.data.columns, progress=False).shapes
    torch.manual_seed(0)
    model = build_model(recipe, build_views(recipe.views, shapes).shapes)
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    store.save_checkpoint(folder, 1, model, torch.optim.AdamW(model.parameters()), {"columns": shapes}, keep=2)
    return load.load_run(folder)


def values(records, **keys) -> dict[str, float]:
    """Return the values of the records that fit, by `what` and metric."""
    fitting = (r for r in records if all(r[key] == value for key, value in keys.items()))
    return {f"{r['what']} {r['metric']}".strip(): r["value"] for r in fitting}


def test_raw_pixels_are_measured_by_dense_and_by_other_probes(loaded):
    """Both encoders are named `pixels`: flat features for kNN, local maps for the dense probe."""
    records = evaluate(loaded, probes=["knn", "dense"], show=False)
    for view in ("image", "depth"):
        result = values(records, probe="dense", encoder="pixels", view=view)
        assert result["pixel_accuracy"] > 0.95
        assert result["miou"] > 0.9
    assert {r["view"] for r in records if r["probe"] == "dense"} == {"image", "depth"}
    assert all(r["protocol"]["ignored_class"] == 9 for r in records if r["probe"] == "dense")
    assert values(records, probe="knn", encoder="pixels", view="image")["accuracy"] > 0.95


def test_segments_of_another_aspect_ratio_are_refused(loaded):
    for sides in ((8, 8), (4, 4), (16, 16)):
        refuse_other_sides(torch.zeros(2, *sides), (3, 8, 8), "image")
    refuse_other_sides(torch.zeros(2, 107, 160), (3, 480, 720), "image")  # 106.7, rounded
    evaluates = loaded.recipe.evaluate
    squeezed = evaluates.model_copy(update={"segments": evaluates.segments.model_copy(update={"size": (4, 8)})})
    other = replace(loaded, recipe=loaded.recipe.model_copy(update={"evaluate": squeezed}))
    with pytest.raises(DataError, match=r"segments are 4x8 and the images of column 'image' 8x8.*size of the column"):
        evaluate(other, probes=["dense"], show=False)


def test_the_dense_probe_is_left_out_for_a_view_that_is_no_image(tmp_path):
    """The other probes continue."""
    (tmp_path / "x").mkdir()
    with webdataset.TarWriter(str(tmp_path / "x" / "000000.tar")) as writer:
        for key in range(20):
            sample = {"npy": np.full(6, key % 2, np.float32), "seg.png": png(np.zeros((4, 4)))}
            writer.write({"__key__": f"{key:08d}", "cls": str(key % 2).encode(), **sample})
    tables = small_runs.tables(tmp_path, tmp_path / "run", views={"x": {"from": "x", "name": "vector", "count": 2}})
    tables["data"] |= {"train": "x/*.tar", "val": "x/*.tar", "columns": {"x": {"field": "npy"}}}
    tables |= {"encoder": {"name": "mlp"}, "evaluate": {"segments": {"field": "seg.png"}}}
    train(parse_recipe(tables | {"train": tables["train"] | {"steps": 1}}))
    with pytest.raises(DataError, match="nothing could be measured: dense: view 'x'"):
        evaluate(load.load_run(tmp_path / "run"), probes=["dense"], show=False)
    assert evaluate(load.load_run(tmp_path / "run"), probes=["dense", "knn"], show=False)


def test_fine_tuning_does_not_change_the_given_encoder(loaded):
    before = {name: x.clone() for name, x in loaded.model.state_dict().items()}
    records = evaluate(loaded, probes=["finetune"], views=["image"], show=False)
    assert {(r["encoder"], r["view"]) for r in records} == {("untrained", "image"), ("trained", "image")}
    for r in records:
        assert r["what"] == "8 labels/class"
        assert r["value"] > 0.75
        assert r["protocol"]["labelled"] == 16
        assert r["protocol"]["mode"] == "trained, fp32"
    assert all(x.equal(before[name]) for name, x in loaded.model.state_dict().items())


def test_views_are_compared_with_each_other(loaded):
    names = ["sensors", "retrieval", "aligned", "spectrum"]
    records = evaluate(loaded, probes=names, layer="head", baselines=False, show=False)
    sensors = values(records, probe="sensors")
    assert {key.removesuffix(" accuracy") for key in sensors} == {
        "all", "without image", "without depth", "only image", "only depth",
    }  # fmt: skip
    assert "image to depth recall_at_1" in values(records, probe="retrieval")
    assert list(values(records, probe="aligned")) == ["image and depth alignment"]
    assert values(records, probe="spectrum", view="image")["effective_rank"] <= 8


def test_samples_of_another_distribution_are_detected(loaded):
    records = evaluate(loaded, probes=["ood"], views=["image"], other="other/*.tar", show=False)
    assert values(records, encoder="pixels")["mahalanobis auroc"] > 0.95


def test_a_probe_of_one_view_reads_only_that_view(loaded, monkeypatch):
    asked, real = [], Split.features
    monkeypatch.setattr(Split, "features", lambda *given, **named: asked.append(given[2:]) or real(*given, **named))
    evaluate(loaded, probes=["knn", "ood"], views=["image"], other="other/*.tar", show=False)
    assert len(asked) > 9
    assert asked.count(("image",)) >= len(asked) - 1  # once to see which views there are


def test_features_are_compared_with_their_input_but_pixels_are_not(loaded):
    records = evaluate(loaded, probes=["inputs"], show=False)
    assert {r["encoder"] for r in records} == {"untrained", "trained"}
    assert "image and its input, infonce information" in values(records, encoder="trained")


def test_duplicate_views_count_once_unless_features_are_constant():
    x = torch.randn(20, 3)
    assert distinct_views({"a": x, "b": x.clone(), "c": 2 * x}) == ["a", "c"]
    flat = torch.ones(20, 3)
    assert distinct_views({"a": flat, "b": flat}) == ["a", "b"]


def test_every_protocol_is_json_and_agrees_between_encoders(loaded):
    records = evaluate(loaded, probes=list(PROBES), views=["image"], layer="head", other="other/*.tar", show=False)
    assert {r["probe"] for r in records} == set(PROBES)
    assert json.loads(json.dumps(records)) == records
    rows = {}
    for r in records:
        rows.setdefault((r["probe"], r["view"], r["what"], r["metric"]), []).append(r["protocol"])
    for key, protocols in rows.items():
        assert all(p == protocols[0] for p in protocols), key


def test_the_recipe_decides_epochs_precision_and_shots_of_fine_tuning(loaded, monkeypatch):
    monkeypatch.undo()  # of `quick`
    changes = {"finetune": Finetune(epochs=3, shots=[5, 1]), "precision": "bf16"}
    changed = loaded.recipe.evaluate.model_copy(update=changes)
    settings = PROBES["finetune"].settings
    assert settings(loaded.recipe.evaluate) == [{"epochs": 10, "augment": True, "precision": "fp32"}]
    assert settings(changed) == [
        {"epochs": 3, "augment": True, "precision": "bf16", "shots": shots} for shots in (1, 5)
    ]


def test_loader_workers_do_not_change_fine_tuning(loaded, monkeypatch):
    given, asked = [], []
    monkeypatch.setattr(Measurement, "_run_probe", lambda self, planned, inputs: given.append(inputs) or [])
    parallel = loaded.recipe.data.model_copy(update={"workers": 2})
    subject = replace(loaded, recipe=loaded.recipe.model_copy(update={"data": parallel}))
    with pytest.raises(DataError, match="nothing could be measured"):
        evaluate(subject, probes=["finetune"], views=["image"], baselines=False, show=False)
    (inputs,) = given
    made = importlib.import_module("mvssl.evaluation.features.inputs")
    for name in ("loader", "sequential_loader"):
        own = getattr(made, name)
        monkeypatch.setattr(
            made, name, lambda *args, own=own, **keywords: asked.append(keywords["workers"]) or own(*args, **keywords)
        )
    seen = []
    for workers in (inputs.workers, 0):
        trainable = replace(inputs, workers=workers).trainable_encoder()
        seen.append([*trainable.train(torch.arange(30), 3, 8, 0, True), *trainable.test()])
    assert asked == [2, 2, 0, 0]
    for ours, theirs in zip(*seen, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_probe_without_enough_memory_is_left_out(loaded, monkeypatch, capsys):
    def too_large(*given, **keywords):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 33.00 GiB")

    monkeypatch.setattr(PROBES["knn"], "run", too_large)
    result = evaluate(loaded, probes=["knn", "spectrum"], views=["image"])
    assert {record["probe"] for record in result} == {"spectrum"}
    shown = " ".join(capsys.readouterr().out.split())
    assert "left out: knn of trained on image: it needs more memory than the device has" in shown
