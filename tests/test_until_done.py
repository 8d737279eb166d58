"""launch/until_done.sh and the launcher itself: what is started again, what is not, and what a signal costs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small_runs
import yaml
from disturbing import newest_step
from test_launch import ACCELERATE, LAUNCH

from mvssl.runs import exit_record

FAKE = """
import json, os, sys
from pathlib import Path
run = Path(sys.argv[1])
(run / "checkpoints").mkdir(parents=True, exist_ok=True)
count = len((run / "starts").read_text()) if (run / "starts").exists() else 0
(run / "starts").write_text("x" * (count + 1))
code, progress = sys.argv[2:][min(count, len(sys.argv) - 3)].split("/")
if progress == "on":
    (run / "checkpoints" / f"step-{count + 1:08d}").mkdir()
if code != "-9":
    (run / "exit.json").write_text(json.dumps({"code": int(code), "reason": ""}, indent=1))
    sys.exit(1)  # as launchers have it
(run / "exit.json").write_text(json.dumps({"code": None, "reason": "running"}, indent=1))
os.kill(os.getpid(), 9)
"""


def until_done(run: Path, *command: str) -> subprocess.CompletedProcess[str]:
    words = [LAUNCH / "until_done.sh", run, *command]
    return subprocess.run(words, env={**os.environ, "PAUSE": "0"}, capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize(
    ("ends", "code", "starts"),
    [
        (["0/"], 0, 1),
        (["75/on", "143/on", "129/", "-9/", "0/"], 0, 5),
        (["-9/on", "-9/", "-9/on", "75/", "75/", "75/"], 75, 6),
        (["143/"], 75, 3),
        *((["75/on", f"{code}/"], code, 2) for code in (64, 65, 70, 73, 74, 130)),
    ],
)
def test_only_ends_that_may_differ_next_time_are_started_again(tmp_path, ends, code, starts):
    done = until_done(tmp_path / "run", sys.executable, "-c", FAKE, str(tmp_path / "run"), *ends)
    assert (done.returncode, len((tmp_path / "run" / "starts").read_text())) == (code, starts), done.stderr


def test_a_command_without_an_exit_record_counts_by_its_own_code(tmp_path):
    (tmp_path / "exit.json").write_text(json.dumps({"code": 75}, indent=1))  # of an earlier command
    time.sleep(0.02)
    assert until_done(tmp_path, "bash", "-c", "exit 3").returncode == 3


@pytest.fixture
def recipe(tmp_path):
    small_runs.write_shards(tmp_path / "data" / "train")
    file = tmp_path / "recipe.yaml"
    views = {"image": {"from": "image", "name": "fault_views:Killer", "count": 2, "position": 4 * small_runs.BATCH}}
    views["image"] |= {"signal": int(signal.SIGKILL), "marker": str(tmp_path / "was killed")}
    file.write_text(yaml.safe_dump(small_runs.tables(tmp_path / "data", tmp_path / "run", views=views, train__steps=8)))
    return file


def test_a_run_that_is_killed_is_completed(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent / "support"), *sys.path]))
    done = until_done(tmp_path / "run", sys.executable, "-m", "mvssl", "train", str(recipe))
    assert done.returncode == 0, done.stderr
    # the kill in step 4 may come before the save of step 3 is complete
    assert re.search("ended with killed at step [03] ", done.stderr)
    assert newest_step(tmp_path / "run") == 8
    assert exit_record.read_exit(tmp_path / "run").code == 0


def test_sigterm_to_the_launcher_loses_no_step_and_is_recorded(recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent / "support"), *sys.path]))
    (tmp_path / "was killed").touch()
    run = tmp_path / "run"
    words = ["-m", "mvssl", "train", str(recipe), "train.steps=100000", "train.save_every=100000", "train.log_every=1"]
    with subprocess.Popen([LAUNCH / "until_done.sh", run, *ACCELERATE, *words], stderr=subprocess.DEVNULL) as loop:
        while not (run / "metrics.jsonl").is_file() or len(small_runs.metrics(run)) < 5:
            time.sleep(0.05)
            assert loop.poll() is None
        loop.send_signal(signal.SIGTERM)
        assert loop.wait(60) == 143
    assert exit_record.read_exit(run).code == 143
    assert newest_step(run) == small_runs.metrics(run)[-1]["step"]
