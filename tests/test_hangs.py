"""Processes and loader processes that hang or are lost: the run names them, saves and ends with its code."""

import multiprocessing
import os
import signal
import threading
import time

import forked_commands
import psutil
import pytest
import small_runs
from disturbing import at_step, newest_step, recipe_file, send

import mvssl.data.workers
from mvssl import train
from mvssl.errors import StorageError
from mvssl.runs import exit_record
from mvssl.runs.folder import claimed


@pytest.fixture
def root(tmp_path):
    small_runs.write_shards(tmp_path / "data" / "train")
    return tmp_path


@pytest.mark.parametrize("step", [0, 4])
def test_a_suspended_process_is_named_and_ends_the_run_with_75(root, step):
    file = recipe_file(root, train__hang_timeout=2)
    hung = forked_commands.start(["train", file], root, world=2, prepare=at_step(step, send(signal.SIGSTOP), rank=1))
    begin = time.monotonic()
    assert hung.wait(grace=0) == {0: 75, 1: -9}, hung.stderr()
    assert time.monotonic() - begin < 20
    reason = exit_record.read_exit(root / "run").reason
    assert f"process 1 ({hung.children[1]} on" in reason
    assert "mvssl" in (root / "run" / "hang-0.txt").read_text()  # the stacks


def test_a_process_whose_main_thread_hangs_is_named(root):
    file = recipe_file(root, train__hang_timeout=2)
    hung = forked_commands.start(["train", file], root, world=2, prepare=at_step(4, lambda: time.sleep(600), rank=1))
    assert set(hung.wait().values()) <= {75, -15}
    assert "process 1 (" in exit_record.read_exit(root / "run").reason


def test_suspending_all_processes_is_not_a_hang(root):
    file = recipe_file(root, train__hang_timeout=1, data__workers=1)
    run = forked_commands.start(["train", file], root, prepare=at_step(4, lambda: time.sleep(0.5)))
    tree = [run.children[0]]
    time.sleep(1)
    tree += [child.pid for child in psutil.Process(tree[0]).children(recursive=True)]
    for process in tree:
        os.kill(process, signal.SIGSTOP)
    time.sleep(2.5)
    for process in reversed(tree):
        os.kill(process, signal.SIGCONT)
    assert run.wait() == {0: 0}, run.stderr()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGSTOP, 75), (signal.SIGKILL, 74)])
def test_a_lost_loader_process_is_named_and_the_steps_are_saved(root, number, code):
    def act() -> None:
        for worker in psutil.Process().children():
            worker.send_signal(number)

    file = recipe_file(root, data__workers=2, train__steps=30, train__hang_timeout=2)
    ended = forked_commands.start(["train", file], root, prepare=at_step(10, act))
    assert ended.wait() == {0: code}, ended.stderr()
    assert "Traceback" not in ended.stderr()
    assert "loader process " in exit_record.read_exit(root / "run").reason
    assert newest_step(root / "run") > 10
    assert forked_commands.start(["train", file], root).wait() == {0: 0}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGSTOP, 75), (signal.SIGKILL, 74)])
def test_lost_loader_processes_in_a_check_end_the_run_saved(root, number, code):
    def prepare(_: int) -> None:
        from mvssl.monitoring import held_out

        see, batches = held_out._encode_clean, []

        def seen(*given):
            batches.append(0)
            if len(batches) == 8:  # in the check after step 4
                for worker in psutil.Process().children():
                    worker.send_signal(number)
            return see(*given)

        held_out._encode_clean = seen

    changes = {"train__check_every": 4, "train__hang_timeout": 2, "data__workers": 1, "data__label": None}
    ended = forked_commands.start(["train", recipe_file(root, **changes)], root, prepare=prepare)
    assert ended.wait() == {0: code}, ended.stderr()
    assert newest_step(root / "run") == 4
    assert "Traceback" not in ended.stderr()


def test_a_short_stall_is_not_a_hang(root):
    """All processes stand still for longer than half the limit, and for a moment beyond the look at each other."""
    file = recipe_file(root, train__hang_timeout=4)
    run = forked_commands.start(["train", file], root, world=2, prepare=at_step(4, lambda: time.sleep(3.4)))
    assert run.wait() == {0: 0, 1: 0}, run.stderr()


def test_a_process_that_waits_for_its_data_is_named(root):
    file = recipe_file(root, train__log_every=4)

    def prepare(rank: int) -> None:
        from mvssl.data import ShardSource

        read = ShardSource.__getitem__
        if rank == 1:
            ShardSource.__getitem__ = lambda self, i: time.sleep(0.02) or read(self, i)

    run = forked_commands.start(["train", file], root, world=2, prepare=prepare)
    assert run.wait() == {0: 0, 1: 0}, run.stderr()
    assert "process 1 waits for data" in run.stderr()
    train(small_runs.recipe(root / "data", root / "straight", train__steps=12, train__log_every=4))
    runs = [[line["loss"] for line in small_runs.metrics(root / out)] for out in ("run", "straight")]
    assert runs[0] == pytest.approx(runs[1], abs=1e-3)


def test_a_child_process_of_the_user_is_not_a_loader_process():
    child = multiprocessing.Process(target=time.sleep, args=(60,))
    child.start()
    try:
        assert mvssl.data.workers.kill_workers() == ""
        assert child.is_alive()
    finally:
        child.kill()
        child.join()


def test_a_dead_pin_memory_thread_causes_no_endless_wait():
    class Stuck:
        _pin_memory_thread = threading.Thread()  # not started: not alive

        def __next__(self):
            raise RuntimeError("DataLoader timed out after 1.0 seconds")

    worker = multiprocessing.Process(target=time.sleep, args=(60,))
    worker.start()
    try:
        with pytest.raises(StorageError):
            mvssl.data.workers.next_batch(Stuck(), [worker], lambda: False)
    finally:
        worker.kill()
        worker.join()


def test_a_reader_error_is_not_reported_as_a_loader_failure():
    def broken():
        raise RuntimeError("a bug")
        yield

    with pytest.raises(RuntimeError, match="a bug"):
        mvssl.data.workers.next_batch(broken(), [], lambda: True)


def test_lingering_workers_of_a_killed_run_hold_no_lock(root):
    file = recipe_file(root, data__workers=1)
    run = forked_commands.start(["train", file], root, prepare=at_step(4, lambda: time.sleep(30)))
    while not (children := psutil.Process(run.children[0]).children()):
        time.sleep(0.01)
    time.sleep(0.5)
    for child in children:
        child.suspend()  # it lives on, and holds what it has inherited
    run.signal(0, signal.SIGKILL)
    run.wait()
    try:
        with claimed(root / "run"):
            pass
    finally:
        for child in children:
            child.kill()
