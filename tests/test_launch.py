"""The launch configurations: the CPU one really starts two processes, the others are what accelerate reads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import small_runs
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.launch import prepare_simple_launcher_cmd_env

from mvssl.checkpoints import store
from mvssl.training.accelerator import is_launched_alone

LAUNCH = Path(__file__).parent.parent / "launch"
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(LAUNCH / "cpu_2.yaml")]


def launch(recipe: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ACCELERATE, "-m", "mvssl", "train", str(recipe), *overrides],
        capture_output=True,
        text=True,
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"},
        timeout=240,
    )


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    small_runs.write_shards(tmp_path / "data" / "train")
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(small_runs.tables(tmp_path / "data", tmp_path / "run", train__steps=2)))
    return file


def test_cpu_2_starts_two_processes_that_train_one_run(recipe, tmp_path):
    done = launch(recipe)
    assert done.returncode == 0, done.stderr
    assert "8 over 2 processes, 4 on each" in " ".join(done.stderr.split())
    assert store.load_state(store.newest(tmp_path / "run")).world == 2


def test_a_mistake_under_the_launcher_leaves_its_code_in_the_run_folder(recipe, tmp_path):
    done = launch(recipe, "data.batch_size=7")
    assert done.returncode != 0
    assert "cannot be shared evenly by 2 processes" in done.stderr
    assert yaml.safe_load((tmp_path / "run" / "exit.json").read_text())["code"] == 64


def test_missing_shards_end_all_processes_without_a_trace(recipe, tmp_path):
    done = launch(recipe, "data.train=nowhere/*.tar")
    assert done.returncode != 0
    assert "mvssl: no shards match" in done.stderr
    assert "mvssl/" not in done.stderr.replace(str(tmp_path), "")  # a stack trace would name our files
    assert yaml.safe_load((tmp_path / "run" / "exit.json").read_text())["code"] == 65


@pytest.mark.parametrize(
    ("name", "processes", "machines"),
    [("cpu_2", 2, 1), ("gpu_1", 1, 1), ("node_8", 8, 1), ("multi_node", 32, 4)],
)
def test_accelerate_reads_every_configuration(name, processes, machines):
    config = load_config_from_file(str(LAUNCH / f"{name}.yaml"))
    assert (config.num_processes, config.num_machines) == (processes, machines)


@pytest.mark.parametrize(("processes", "lonely"), [("2", True), ("1", False)])
def test_a_launcher_that_starts_one_process_of_two_is_reported(processes, lonely, monkeypatch):
    words = [
        "--cpu",
        "--num_processes",
        processes,
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
    ]
    _, environment = prepare_simple_launcher_cmd_env(launch_command_parser().parse_args([*words, "-m", "mvssl"]))
    for name in ("MASTER_ADDR", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MASTER_ADDR", "ACCELERATE_MIXED_PRECISION"):
        if name in environment:
            monkeypatch.setenv(name, environment[name])
    assert is_launched_alone(world=1) is lonely
    assert not is_launched_alone(world=2)
