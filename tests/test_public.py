"""The public functions of Python: what `from mvssl import ...` gives, and that each takes what its command takes."""

import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import small_runs
import typer.main

import mvssl
from mvssl import embed, evaluate, export, load_recipe, load_run, report, train
from mvssl.cli.commands import app
from mvssl.errors import RecipeError
from mvssl.evaluation import Subject, open_subject
from mvssl.recipe import to_yaml

FUNCTIONS = ("embed", "evaluate", "export", "load_recipe", "load_run", "report", "train")
RENAMED = {"json_file": "--json", "probes": "--probe", "views": "--view"}


def run_python(text: str) -> str:
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def import_all() -> list[str]:
    names = [module.name for module in pkgutil.walk_packages(mvssl.__path__, "mvssl.")]
    for name in names:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    return names


def test_no_module_hides_a_public_function():
    names = import_all()
    assert not {name.split(".")[1] for name in names} & set(FUNCTIONS)
    for name in FUNCTIONS:
        assert inspect.isfunction(getattr(mvssl, name)), name
        assert name in dir(mvssl)


# (package, name): importing the module of that name would hide the function that the package exports
HIDDEN = {("mvssl.encoders", "mlp")}


def test_no_module_hides_an_exported_name_of_its_package():
    hidden = set()
    for name in import_all():
        package = importlib.import_module(name)
        if hasattr(package, "__path__"):
            modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
            exported = modules & set(getattr(package, "__all__", ()))
            hidden |= {(name, same) for same in exported if hasattr(sys.modules[f"{name}.{same}"], same)}
    assert hidden == HIDDEN


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError):
        _ = mvssl.evaluat  # pyright: ignore


def test_importing_mvssl_imports_neither_torch_nor_timm():
    assert run_python("import sys, mvssl; print({'torch', 'timm', 'numpy'} & set(sys.modules))") == "set()"


@pytest.mark.parametrize("imports", ["mvssl, timm", "timm, mvssl"])
def test_networks_are_registered_whichever_is_imported_first(imports):
    text = f"import {imports}; print(timm.create_model('dim_conv32', num_classes=0).num_features)"
    assert run_python(text) == "64"


@pytest.mark.parametrize("name", ["embed", "evaluate", "export", "report"])
def test_a_function_takes_every_option_of_its_command(name):
    command = typer.main.get_command(app).commands[name]  # pyright: ignore
    given = inspect.signature(getattr(mvssl, name)).parameters
    names = {RENAMED.get(key, f"--{key.replace('_', '-')}") for key in given}
    options = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
    assert options - names - {"--help", "--out"} == set()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("public")
    small_runs.write_shards(root / "train")
    file = root / "recipe.yaml"
    file.write_text(to_yaml(small_runs.recipe(root, root / "run")))
    return train(file, ["train.steps=2", "train.then=[export]"]).folder


def test_train_takes_a_file_and_does_what_follows_the_last_step(run):
    assert (run / "backbone" / "config.json").is_file()
    assert load_recipe(run / "recipe.yaml").train.steps == 2


def test_train_changes_an_open_recipe_by_overrides(run, tmp_path):
    recipe = load_recipe(run / "recipe.yaml")
    outcome = train(recipe, [f"train.out={tmp_path}", "train.steps=1"], then=False)
    assert (outcome.step, outcome.folder) == (1, tmp_path)
    assert not (tmp_path / "backbone").exists()


@pytest.mark.parametrize("then", ["evaluate", "views"])
def test_a_dataset_in_place_of_shards_refuses_what_reads_shards(run, tmp_path, then):
    recipe = small_runs.recipe(run.parent, tmp_path, train__then=[then], train__steps=1)
    with pytest.raises(RecipeError, match=r"^train\.then"):
        train(recipe, data=[{"image": None}])


def test_a_run_is_given_as_a_folder_or_opened(run, tmp_path):
    opened = load_run(run)
    kinds = (run, str(run), opened)
    options = {"probes": ["knn"], "baselines": False, "show": False}
    values = [evaluate(kind, json_file=tmp_path / f"{n}.json", **options)[0]["value"] for n, kind in enumerate(kinds)]
    assert len(set(values)) == 1
    for number, kind in enumerate(kinds):
        embed(kind, tmp_path / f"{number}.npz")
        export(kind, tmp_path / f"export{number}")
        assert report(kind, tmp_path / f"{number}.html", samples=0).file.is_file()
    assert len({(tmp_path / f"{number}.npz").read_bytes() for number in range(3)}) == 1


def test_overrides_change_the_data_of_a_run_and_nothing_else(run, tmp_path):
    for kind in (run, load_run(run), Subject.of_run(load_run(run))):
        made = embed(kind, tmp_path / f"{os.urandom(4).hex()}.npz", overrides=["data.val=train/000002.tar"])
        assert made is not None
        assert made.samples == 7
        with pytest.raises(RecipeError, match=r"^train\.seed=1"):
            evaluate(kind, overrides=["train.seed=1"])


def test_an_open_subject_takes_no_recipe_and_no_weights(run):
    for kind in (load_run(run), Subject.of_run(load_run(run))):
        with pytest.raises(RecipeError):
            open_subject(kind, recipe=run / "recipe.yaml")
        with pytest.raises(RecipeError):
            evaluate(kind, weights="pretrained")
