"""The command line: every mistake is a sentence on standard error and an exit code, and loses nothing."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import small_runs
import yaml

from mvssl.cli.main import main
from mvssl.process.signals import BEFORE_FIRST_STEP
from mvssl.runs.folder import claimed


@pytest.fixture
def data(tmp_path: Path) -> Path:
    small_runs.write_shards(tmp_path / "data" / "train")
    return tmp_path / "data"


@pytest.fixture
def recipe(data: Path, tmp_path: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(small_runs.tables(data, tmp_path / "run", train__steps=2)))
    return file


def says(capsys, *arguments: object) -> tuple[int, str]:
    """Exit code and standard error of a command."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as done:
        return int(done.code or 0), capsys.readouterr().err
    return 0, capsys.readouterr().err


def test_an_unknown_key_is_64_with_the_nearest_match(capsys, recipe):
    code, text = says(capsys, "train", recipe, "optim.learning_rate=1")
    assert (code, "optim.learning_rate: unknown key" in text) == (64, True)


def test_a_wrong_type_is_64_with_its_place(capsys, recipe):
    code, text = says(capsys, "train", recipe, "objective.temperature=warm")
    assert (code, "objective.0.temperature: expected a number" in text) == (64, True)


def test_an_unknown_recipe_is_64_with_its_name(capsys):
    code, text = says(capsys, "train", "recipes/nothing.yaml")
    assert (code, "recipes/nothing.yaml cannot be read" in text) == (64, True)


def test_an_unknown_verb_or_option_is_64(capsys, recipe):
    assert says(capsys, "trian", recipe)[0] == 64
    code, text = says(capsys, "train", recipe, "--fast")
    assert (code, "--fast" in text) == (64, True)


def test_missing_shards_are_65_with_a_hint(capsys, recipe):
    code, text = says(capsys, "train", recipe, "data.train=nowhere/*.tar")
    assert code == 65
    assert "nowhere/*.tar" in text
    assert "mvssl pack" in text


def test_a_shard_cut_short_is_65_with_its_name(capsys, recipe, data):
    shard = data / "train" / "000001.tar"
    shard.write_bytes(shard.read_bytes()[:-3000])
    code, text = says(capsys, "train", recipe)
    assert (code, "000001.tar" in text) == (65, True)
    assert says(capsys, "verify", shard)[0] == 65


def test_a_missing_column_is_65_with_the_fields_that_are_there(capsys, recipe):
    code, text = says(capsys, "train", recipe, "data.columns.image.field=rgb.png")
    assert (code, "depth.png" in text) == (65, True)


def test_fewer_samples_than_a_batch_are_65(capsys, recipe):
    code, text = says(capsys, "train", recipe, "data.batch_size=64")
    assert (code, "40 samples" in text) == (65, True)


def test_an_output_folder_that_cannot_be_written_is_73(capsys, recipe, tmp_path):
    (tmp_path / "file").touch()
    code, text = says(capsys, "train", recipe, f"train.out={tmp_path}/file/run")
    assert (code, "choose another with train.out" in text) == (73, True)


def test_train_then_is_checked_before_the_run(capsys, recipe, tmp_path):
    code, text = says(capsys, "train", recipe, "train.then=[evaluate]", "data.val=nowhere/*.tar")
    assert (code, "nowhere/*.tar" in text) == (65, True)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_second_run_in_a_folder_is_73(capsys, recipe, tmp_path):
    with claimed(tmp_path / "run"):
        code, text = says(capsys, "train", recipe)
    assert (code, f"process {os.getpid()} on" in text) == (73, True)


def test_no_number_of_a_recipe_is_nan_or_infinite(capsys, recipe):
    for override in ("optim.lr=.inf", "objective.temperature=.nan", "objective.weight=.inf"):
        code, text = says(capsys, "train", recipe, override)
        assert (code, "finite" in text) == (64, True)


def test_another_objective_on_an_existing_run_is_64_and_changes_nothing(capsys, recipe, tmp_path):
    assert says(capsys, "train", recipe)[0] == 0
    before = {p: p.read_bytes() for p in (tmp_path / "run" / "checkpoints").rglob("*") if p.is_file()}
    code, text = says(capsys, "train", recipe, "objective={name: dim, units: 8}")
    assert (code, "objective" in text) == (64, True)
    assert before == {p: p.read_bytes() for p in (tmp_path / "run" / "checkpoints").rglob("*") if p.is_file()}
    assert json.loads((tmp_path / "run" / "exit.json").read_text())["code"] == 64


def test_a_saved_run_loads_foreign_classes_only_if_trusted(capsys, recipe, tmp_path):
    view = "views.image={from: image, name: 'fault_views:Poison', count: 2, positions: []}"
    assert says(capsys, "train", recipe, view)[0] == 0
    code, text = says(capsys, "evaluate", tmp_path / "run", "--probe", "knn")
    assert (code, "--trust fault_views" in text) == (64, True)
    assert says(capsys, "evaluate", tmp_path / "run", "--probe", "knn", "--trust", "fault_views")[0] == 0


def test_train_evaluate_export_views_in_a_row(capsys, recipe, tmp_path):
    assert says(capsys, "train", recipe)[0] == 0
    assert says(capsys, "evaluate", tmp_path / "run", "--probe", "knn", "--json", tmp_path / "knn.json")[0] == 0
    records = json.loads((tmp_path / "knn.json").read_text())
    assert {record["encoder"] for record in records} == {"pixels", "untrained", "trained"}
    assert all(0 <= record["value"] <= 1 for record in records)
    assert says(capsys, "export", tmp_path / "run", tmp_path / "backbone")[0] == 0
    assert (tmp_path / "backbone" / "model.safetensors").is_file()
    assert says(capsys, "views", recipe, "--out", tmp_path / "sheet.png")[0] == 0
    assert (tmp_path / "sheet.png").stat().st_size > 1000


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_stopped_during_imports_reports_it(capsys, recipe, monkeypatch, number, code):
    before = signal.getsignal(number)
    monkeypatch.setattr("mvssl.recipe.load_recipe", lambda *_: os.kill(os.getpid(), number))
    assert says(capsys, "train", recipe) == (code, f"mvssl: {BEFORE_FIRST_STEP}\n")
    assert signal.getsignal(number) == before


def test_empty_words_and_words_without_utf_8_are_64_with_their_place(capsys, recipe):
    code, text = says(capsys, "report", "")
    assert (code, "word 2 of the command line is empty" in text) == (64, True)
    code, text = says(capsys, "train", recipe, f"train.out={os.fsdecode(b'run' + bytes([255]))}")
    assert (code, "word 3 of the command line is no UTF-8: b'train.out=run" in text) == (64, True)


@pytest.mark.parametrize("zeros", [15, 18, 25])
def test_a_head_larger_than_memory_is_64_with_its_size(capsys, recipe, zeros):
    code, text = says(capsys, "train", recipe, f"objective.embed=1{'0' * zeros}")
    assert (code, "objective.0: there is not enough memory to build it with {'embed': 1000" in text) == (64, True)


def test_a_run_folder_that_is_a_file_is_73(capsys, recipe):
    code, text = says(capsys, "train", recipe, f"train.out={recipe}")
    assert (code, "recipe.yaml cannot be written: it is no folder" in text) == (73, True)


def test_the_schema_is_json(capsys):
    main(["schema"])
    assert "properties" in json.loads(capsys.readouterr().out)


def test_the_version_is_that_of_the_package(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"{importlib.metadata.version('mvssl')}\n"


def test_a_missing_argument_points_to_the_help_of_its_command(capsys):
    with pytest.raises(SystemExit, match="64"):
        main(["segments"])
    assert capsys.readouterr().err == "mvssl: Missing argument 'RUN'; see `mvssl segments --help`\n"


def imported(*arguments: object) -> set[str]:
    """The packages that a process of its own imports for a command."""
    command = [sys.executable, "-X", "importtime", *map(str, arguments)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120).stderr
    return {line.rpartition("|")[2].strip() for line in said.splitlines() if line.startswith("import time:")}


def test_help_version_and_mistakes_need_no_torch(tmp_path):
    script = tmp_path / "mvssl"  # as pip writes it
    script.write_text("from mvssl.cli.main import main\nmain()\n")
    verbs = (["--help"], ["--version"], ["verify"], ["train", "recipes/nothing.yaml"])
    for command in (*(["-m", "mvssl", *verb] for verb in verbs), [script, "--help"]):
        seen = imported(*command)
        assert "mvssl.cli.commands" in seen
        assert not seen & {"torch", "timm"}, command


def test_training_imports_no_library_that_only_other_commands_need():
    seen = imported("-c", "import mvssl.pipeline.api")
    assert "mvssl.training.loop" in seen
    assert not seen & {"sklearn", "scipy.signal", "scipy.stats", "matplotlib"}


def test_importing_mvssl_registers_its_networks_with_timm():
    text = "import mvssl, timm; print(timm.create_model('dim_conv32', num_classes=0).num_features)"
    done = subprocess.run([sys.executable, "-c", text, "-m", "mvssl"], capture_output=True, text=True, timeout=120)
    assert done.stdout == "64\n", done.stderr
