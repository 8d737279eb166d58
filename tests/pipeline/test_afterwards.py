"""What follows a run: it is checked before training, and the commands that are printed work."""

import shlex
import subprocess
import sys

import pytest
import small_runs

from mvssl import train
from mvssl.errors import DataError, OutputError, RecipeError
from mvssl.evaluation.plan import refuse_impossible
from mvssl.pipeline import afterwards
from mvssl.recipe import Evaluate, parse_recipe

THEN = ["evaluate", "export"]


@pytest.fixture
def root(tmp_path):
    small_runs.write_shards(tmp_path / "train")
    return tmp_path


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ({"label": None}, RecipeError, "data.label"),
        ({"val": []}, RecipeError, "data.val"),
        ({"val": "nowhere/*.tar"}, DataError, "no shards match"),
        ({"label": {"field": "json"}}, DataError, "no sample has the field"),
    ],
)
def test_an_impossible_evaluation_is_refused_before_the_run(root, table, error, message):
    tables = small_runs.tables(root, root / "run", train__then=THEN)
    tables["data"] |= table
    with pytest.raises(error, match=message):
        afterwards.check_then_inputs(parse_recipe(tables))
    tables["train"]["then"] = ["views"]
    afterwards.check_then_inputs(parse_recipe(tables))


def test_an_unknown_probe_is_refused_before_the_run(root):
    recipe = small_runs.recipe(root, root / "run", train__then=THEN, evaluate={"probes": ["lineer"]})
    with pytest.raises(RecipeError, match=r"evaluate\.probes: no probe 'lineer'; did you mean 'linear'"):
        afterwards.check_then_inputs(recipe)


def test_an_unknown_layer_is_refused_before_the_first_step(root):
    recipe = small_runs.recipe(root, root / "run", train__then=["evaluate"], evaluate={"layer": 9})
    with pytest.raises(RecipeError, match=r"evaluate\.layer: view 'image' has no layer '9' \(accepted: vector, head, "):
        train(recipe)
    assert not (root / "run" / "checkpoints").exists()
    train(recipe.model_copy(update={"train": recipe.train.model_copy(update={"then": [], "steps": 1})}))


def test_probes_that_need_no_labels_ask_for_none_before_the_run(root):
    tables = small_runs.tables(root, root / "run", train__then=THEN, evaluate={"probes": ["spectrum"]})
    tables["data"] |= {"label": None}
    afterwards.check_then_inputs(parse_recipe(tables))
    tables["evaluate"] = {"probes": ["spectrum", "knn"]}
    with pytest.raises(RecipeError, match=r"data\.label"):
        afterwards.check_then_inputs(parse_recipe(tables))


def test_a_backbone_folder_with_other_files_is_refused_before_the_run(root):
    recipe = small_runs.recipe(root, root / "run", train__then=THEN)
    afterwards.check_then_inputs(recipe)
    (root / "run/backbone").mkdir(parents=True)
    (root / "run/backbone/thesis.tex").write_text("")
    with pytest.raises(OutputError, match="no earlier export"):
        afterwards.check_then_inputs(recipe)


@pytest.mark.parametrize("name", ["dim_conv32", "resnet18"])
def test_the_printed_next_commands_work(root, name, capsys):
    """Two encoders are two folders; only networks of mvssl's own need it imported."""
    options = {} if name == "resnet18" else {"img_size": 8, "channels": [8, 8, 8], "hidden": 16, "code": 8}
    table = {"name": name, "options": options}
    views = {"a": {"from": "image"}, "b": {"from": "image", "channels": [0]}}
    recipe = small_runs.recipe(
        root, root / "run", views=views, encoder={"a": table, "b": table},
        train__steps=1, train__then=["export"], train__trackers=[],
    )  # fmt: skip
    train(recipe)
    printed = [line.strip() for line in capsys.readouterr().err.partition("next:")[2].strip().splitlines()]
    loads = [line for line in printed if line.startswith("python")]
    assert [f"{root}/run/backbone/{group}'" in line for group, line in zip("ab", loads, strict=True)] == [True, True]
    assert all(("mvssl" in line) == (name != "resnet18") for line in loads)
    assert f"mvssl evaluate {root / 'run'}" in printed
    assert not any("tensorboard" in line for line in printed)
    done = subprocess.run([sys.executable, *shlex.split(loads[0])[1:]], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def train_as_rank(given):
    assert small_runs.train_as_rank(given) == (2, "")


def test_all_processes_evaluate_and_the_main_one_does_the_rest(root, processes):
    then = ["evaluate", "export", "views"]
    given = small_runs.tables(root, root / "run", train__steps=1, train__then=then, evaluate={"probes": ["knn"]})
    processes(train_as_rank, given)
    assert all((root / "run" / name).exists() for name in ("evaluation.json", "backbone", "views.png"))


@pytest.mark.parametrize(("probe", "message"), [("ood", "--other SHARDS"), ("dense", r"evaluate\.segments")])
def test_a_probe_that_a_recipe_cannot_feed_is_refused_before_training(probe, message):
    with pytest.raises(RecipeError, match=message):
        refuse_impossible(Evaluate(probes=[probe]))
