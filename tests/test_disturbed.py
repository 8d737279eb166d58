"""Runs that are signalled: all acknowledged steps are saved, and every end has its exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked_commands
import psutil
import pytest
import small_runs
import torch
from disturbing import at_step, newest_step, recipe_file, same_weights, send

import mvssl.data.workers
from mvssl import train
from mvssl.checkpoints import store
from mvssl.monitoring import held_out
from mvssl.monitoring.check import Checker
from mvssl.runs import exit_record

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


@pytest.fixture
def root(tmp_path):
    small_runs.write_shards(tmp_path / "data" / "train")
    return tmp_path


@pytest.mark.parametrize(("number", "code"), CODES.items())
def test_many_signals_save_once_and_the_run_can_continue(root, number, code):
    file = recipe_file(root)
    first = forked_commands.start(
        ["train", file], root, prepare=at_step(4, send(number, number, signal.SIGTERM, number))
    )
    assert first.wait() == {0: code}, first.stderr()
    assert newest_step(root / "run") == 7  # the step under way, the one that votes, and the one that reads the vote
    assert exit_record.read_exit(root / "run").code == code
    assert forked_commands.start(["train", file], root).wait() == {0: 0}
    train(small_runs.recipe(root / "data", root / "straight", train__steps=12, train__save_every=100))
    assert same_weights(root / "run", root / "straight", 12)


@pytest.mark.parametrize("rank", [None, 0, 1])
def test_a_signal_to_one_process_stops_and_saves_all(root, rank):
    act = at_step(4, send(signal.SIGTERM, signal.SIGTERM), rank)
    stopped = forked_commands.start(["train", recipe_file(root)], root, world=2, prepare=act)
    assert stopped.wait() == {0: 143, 1: 143}, stopped.stderr()
    assert newest_step(root / "run") == 7


def test_a_run_with_sigusr1_gives_the_same_weights(root):
    asked = forked_commands.start(["train", recipe_file(root)], root, prepare=at_step(4, send(signal.SIGUSR1)))
    assert asked.wait() == {0: 0}, asked.stderr()
    steps = [store.step_in_name(found) for found in store.list_checkpoints(root / "run")]
    assert steps == [12, 7]
    train(small_runs.recipe(root / "data", root / "straight", train__steps=12, train__save_every=100))
    assert same_weights(root / "run", root / "straight", 12)


def test_sighup_under_nohup_changes_nothing(root):
    def prepare(rank: int) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        at_step(4, send(signal.SIGHUP))(rank)

    assert forked_commands.start(["train", recipe_file(root)], root, prepare=prepare).wait() == {0: 0}


def test_a_signal_ends_an_endless_wait_for_the_first_batch(root):
    def prepare(_: int) -> None:
        mvssl.data.workers.POLL = 0.2
        held_out.loader = lambda *_, **__: waiting_forever(send(signal.SIGTERM))

    stopped = forked_commands.start(["train", recipe_file(root, data__workers=1)], root, prepare=prepare)
    assert stopped.wait() == {0: 143}, stopped.stderr()


def waiting_forever(act):
    from mvssl.data import loader

    class Slow(torch.utils.data.Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, i):
            if i >= 0 and torch.utils.data.get_worker_info():
                time.sleep(1000)
            return {"image": torch.zeros(3, 8, 8, dtype=torch.uint8)}

    act()
    return loader(Slow(), batch_size=8, seed=0, stop_step=12, workers=1)


def test_a_signal_during_train_then_leaves_the_rest_for_later(root):
    def prepare(_: int) -> None:
        from mvssl.figures import curves

        curves.save_curves = lambda *_: send(signal.SIGTERM, signal.SIGTERM)() or time.sleep(60)

    file = recipe_file(root, train__then=["curves"])
    stopped = forked_commands.start(["train", file], root, prepare=prepare)
    assert stopped.wait() == {0: 143}, stopped.stderr()
    assert exit_record.read_exit(root / "run").code == 143
    assert newest_step(root / "run") == 12
    assert forked_commands.start(["train", file], root).wait() == {0: 0}
    assert (root / "run" / "curves.png").is_file()
    assert exit_record.read_exit(root / "run").code == 0


@pytest.mark.parametrize("world", [1, 2])
def test_processes_whose_launcher_is_killed_save_and_stop(root, world):
    file = recipe_file(root, train__steps=100_000)
    launcher = os.fork()
    if not launcher:
        os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # as `accelerate launch` does
        forked_commands.start(["train", file], root, world)
        signal.pause()
    run = root / "run"
    while not (run / "metrics.jsonl").is_file():
        time.sleep(0.02)
    ranks = psutil.Process(launcher).children()
    os.kill(launcher, signal.SIGKILL)
    os.waitpid(launcher, 0)
    _, alive = psutil.wait_procs(ranks, timeout=30)
    assert not alive
    assert exit_record.read_exit(run).code == 143
    assert newest_step(run) >= small_runs.metrics(run)[-1]["step"]


def test_an_interrupted_log_interval_has_the_same_metrics(root):
    for out, act in (("legs", send(signal.SIGTERM)), ("straight", send())):
        file = recipe_file(root, out, train__log_every=5)
        forked_commands.start(["train", file], root, prepare=at_step(4, act)).wait()
    assert newest_step(root / "legs") == 7
    assert forked_commands.start(["train", file.with_name("legs.yaml")], root).wait() == {0: 0}
    legs, straight = (small_runs.metrics(root / out) for out in ("legs", "straight"))
    pace = {"samples_per_second": 0, "data_wait": 0}
    assert [{**line, **pace} for line in legs] == [{**line, **pace} for line in straight]


def test_an_interrupted_check_is_repeated_and_no_checkpoint_rewritten(root):
    def prepare(_: int) -> None:
        look, steps = Checker._measure, []

        def looked(self, stopped):
            steps.append(0)
            if len(steps) == 2:  # the first is before step 1
                os.kill(os.getpid(), signal.SIGTERM)
            return look(self, stopped)

        Checker._measure = looked

    file = recipe_file(root, train__check_every=4, train__steps=6)
    stopped = forked_commands.start(["train", file], root, prepare=prepare)
    assert stopped.wait() == {0: 143}, stopped.stderr()
    saved = root / "run/checkpoints/step-00000004"
    before = {path.name: (path.stat().st_ino, path.read_bytes()) for path in saved.iterdir()}
    assert forked_commands.start(["train", file], root).wait() == {0: 0}
    assert {path.name: (path.stat().st_ino, path.read_bytes()) for path in saved.iterdir()} == before
    assert store.best(root / "run") in store.list_checkpoints(root / "run")
    assert set(json.loads((root / "run/checkpoints/held_out.json").read_text())) == {"4", "6"}


def test_a_signal_during_imports_has_its_exit_code(root):
    """The command handles signals before it imports torch. Python itself handles SIGINT a little earlier."""
    for delay in (0, 0.4, 1.5):
        with subprocess.Popen(
            [sys.executable, "-m", "mvssl", "train", str(recipe_file(root))], stderr=subprocess.PIPE, text=True
        ) as process:
            while not handles(process.pid, signal.SIGTERM):
                time.sleep(0.005)
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            error = process.communicate(timeout=60)[1]
            assert process.returncode in (130, 0)
            assert "Traceback" not in error


def handles(process: int, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    status = Path(f"/proc/{process}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


def test_a_run_continues_when_nobody_reads_its_messages(root):
    def prepare(_: int) -> None:
        read, write = os.pipe()
        os.dup2(write, 2)
        os.close(read)

    assert forked_commands.start(["train", recipe_file(root, train__log_every=1)], root, prepare=prepare).wait() == {
        0: 0
    }
    assert len(small_runs.metrics(root / "run")) == 12
