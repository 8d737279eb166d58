"""Runs that are signalled, stopped, starved and cut off: what was acknowledged is there, and every end has its code."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import forks
import psutil
import pytest
import tiny
import torch
from disturbing import at_step, newest_step, recipe_file, same_weights, send

import mvssl.data.workers
from mvssl.checkpoints import store
from mvssl.errors import OutputError, StorageError
from mvssl.monitoring.check import Checks
from mvssl.runs import exit_record
from mvssl.runs.folder import claimed
from mvssl.training.loop import train
from mvssl.training.step import Trainer

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}


@pytest.fixture
def root(tmp_path):
    tiny.write_shards(tmp_path / "data" / "train")
    return tmp_path


@pytest.mark.parametrize(("number", "code"), CODES.items())
def test_many_signals_save_once_and_the_same_command_goes_on(root, number, code):
    file = recipe_file(root)
    first = forks.start(["train", file], root, prepare=at_step(4, send(number, number, signal.SIGTERM, number)))
    assert first.wait() == {0: code}, first.stderr()
    assert newest_step(root / "run") == 7  # the step under way, the one that votes, and the one that reads the vote
    assert exit_record.read_exit(root / "run").code == code
    assert forks.start(["train", file], root).wait() == {0: 0}
    train(tiny.recipe(root / "data", root / "straight", train__steps=12, train__save_every=100))
    assert same_weights(root / "run", root / "straight", 12)


@pytest.mark.parametrize("rank", [None, 0, 1])
def test_one_process_that_is_asked_stops_all_with_all_saved(root, rank):
    act = at_step(4, send(signal.SIGTERM, signal.SIGTERM), rank)
    stopped = forks.start(["train", recipe_file(root)], root, world=2, prepare=act)
    assert stopped.wait() == {0: 143, 1: 143}, stopped.stderr()
    assert newest_step(root / "run") == 7


def test_sigusr1_saves_and_goes_on_to_the_same_weights(root):
    asked = forks.start(["train", recipe_file(root)], root, prepare=at_step(4, send(signal.SIGUSR1)))
    assert asked.wait() == {0: 0}, asked.stderr()
    steps = [store.step_of(found) for found in store.candidates(root / "run")]
    assert steps == [12, 7]
    train(tiny.recipe(root / "data", root / "straight", train__steps=12, train__save_every=100))
    assert same_weights(root / "run", root / "straight", 12)


def test_a_hang_up_that_nohup_ignores_changes_nothing(root):
    def prepare(rank: int) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        at_step(4, send(signal.SIGHUP))(rank)

    assert forks.start(["train", recipe_file(root)], root, prepare=prepare).wait() == {0: 0}


def test_a_signal_while_the_first_batch_is_awaited_ends_a_run_that_waits_for_ever(root):
    def prepare(_: int) -> None:
        mvssl.data.workers.POLL = 0.2
        Trainer.batches = lambda *_: waiting_forever(send(signal.SIGTERM))

    stopped = forks.start(["train", recipe_file(root, data__workers=1)], root, prepare=prepare)
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


def test_a_signal_in_train_then_is_told_and_the_same_command_does_the_rest(root):
    def prepare(_: int) -> None:
        from mvssl.figures import curves

        curves.save_curves = lambda *_: send(signal.SIGTERM, signal.SIGTERM)() or time.sleep(60)

    file = recipe_file(root, train__then=["curves"])
    stopped = forks.start(["train", file], root, prepare=prepare)
    assert stopped.wait() == {0: 143}, stopped.stderr()
    assert exit_record.read_exit(root / "run").code == 143
    assert newest_step(root / "run") == 12
    assert forks.start(["train", file], root).wait() == {0: 0}
    assert (root / "run" / "curves.png").is_file()
    assert exit_record.read_exit(root / "run").code == 0


@pytest.mark.parametrize("step", [0, 4])
def test_a_stopped_process_is_named_and_ends_the_run_with_75(root, step):
    file = recipe_file(root, train__hang_timeout=2)
    hung = forks.start(["train", file], root, world=2, prepare=at_step(step, send(signal.SIGSTOP), rank=1))
    begin = time.monotonic()
    assert hung.wait(grace=0) == {0: 75, 1: -9}, hung.stderr()
    assert time.monotonic() - begin < 20
    reason = exit_record.read_exit(root / "run").reason
    assert f"process 1 ({hung.children[1]} on" in reason
    assert "mvssl" in (root / "run" / "hang-0.txt").read_text()  # the stacks


def test_a_process_whose_main_thread_hangs_is_named_by_the_others(root):
    file = recipe_file(root, train__hang_timeout=2)
    hung = forks.start(["train", file], root, world=2, prepare=at_step(4, lambda: time.sleep(600), rank=1))
    assert set(hung.wait().values()) <= {75, -15}
    assert "process 1 (" in exit_record.read_exit(root / "run").reason


def test_a_pause_of_a_whole_run_is_no_hang(root):
    file = recipe_file(root, train__hang_timeout=1, data__workers=1)
    run = forks.start(["train", file], root, prepare=at_step(4, lambda: time.sleep(0.5)))
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
def test_a_loader_process_that_hangs_or_is_killed_is_named_and_the_steps_are_saved(root, number, code):
    def act() -> None:
        for worker in psutil.Process().children():
            worker.send_signal(number)

    file = recipe_file(root, data__workers=2, train__steps=30, train__hang_timeout=2)
    ended = forks.start(["train", file], root, prepare=at_step(10, act))
    assert ended.wait() == {0: code}, ended.stderr()
    assert "Traceback" not in ended.stderr()
    assert "loader process " in exit_record.read_exit(root / "run").reason
    assert newest_step(root / "run") > 10
    assert forks.start(["train", file], root).wait() == {0: 0}


def test_after_kill_9_the_same_command_starts_at_once_though_workers_linger(root):
    file = recipe_file(root, data__workers=1)
    run = forks.start(["train", file], root, prepare=at_step(4, lambda: time.sleep(30)))
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


def test_a_run_goes_on_when_the_reader_of_its_messages_is_gone(root):
    def prepare(_: int) -> None:
        read, write = os.pipe()
        os.dup2(write, 2)
        os.close(read)

    assert forks.start(["train", recipe_file(root, train__log_every=1)], root, prepare=prepare).wait() == {0: 0}
    assert len(tiny.metrics(root / "run")) == 12


@pytest.mark.parametrize("world", [1, 2])
def test_processes_whose_launcher_is_killed_save_and_stop(root, world):
    file = recipe_file(root, train__steps=100_000)
    launcher = os.fork()
    if not launcher:
        os.environ["ACCELERATE_MIXED_PRECISION"] = "no"  # as `accelerate launch` does
        forks.start(["train", file], root, world)
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
    assert newest_step(run) >= tiny.metrics(run)[-1]["step"]


def test_a_save_that_fails_is_tried_again_and_the_third_failure_ends_the_run(root, monkeypatch, capsys):
    save, left = store.save_checkpoint, [2]

    def failing(*given, **keywords):
        left[0] -= 1
        if left[0] >= 0:
            raise StorageError(os.strerror(errno.ENOSPC))
        return save(*given, **keywords)

    monkeypatch.setattr(store, "save_checkpoint", failing)
    train(tiny.recipe(root / "data", root / "run", train__steps=12, train__save_every=3, train__keep=9))
    assert [store.step_of(found) for found in store.candidates(root / "run")] == [12, 9]
    assert "training goes on" in capsys.readouterr().err
    left[0] = 3
    with pytest.raises(StorageError):
        train(tiny.recipe(root / "data", root / "other", train__steps=12, train__save_every=3))


def test_a_run_folder_that_is_removed_in_use_ends_the_run(root):
    gone = forks.start(["train", recipe_file(root)], root, prepare=at_step(4, lambda: shutil.rmtree(root / "run")))
    assert gone.wait() == {0: 74}, gone.stderr()
    assert "Traceback" not in gone.stderr()


def test_an_interrupted_interval_of_the_log_is_the_uninterrupted_one(root):
    for out, act in (("legs", send(signal.SIGTERM)), ("straight", send())):
        file = recipe_file(root, out, train__log_every=5)
        forks.start(["train", file], root, prepare=at_step(4, act)).wait()
    assert newest_step(root / "legs") == 7
    assert forks.start(["train", file.with_name("legs.yaml")], root).wait() == {0: 0}
    legs, straight = (tiny.metrics(root / out) for out in ("legs", "straight"))
    pace = {"samples_per_second": 0, "data_wait": 0}
    assert [{**line, **pace} for line in legs] == [{**line, **pace} for line in straight]


def test_memory_that_has_run_out_is_told_with_what_to_lower(root):
    def starve() -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")

    for world in (1, 2):
        file = recipe_file(root, f"run{world}")
        ended = forks.start(["train", file], root, world=world, prepare=at_step(4, starve, rank=world - 1))
        assert ended.wait(grace=5)[world - 1] == 74, ended.stderr()
        reason = exit_record.read_exit(root / f"run{world}").reason
        assert "data.batch_size" in reason
        assert (f"process {world - 1} of 2" in reason) == (world == 2)


def test_a_killed_run_is_noticed_by_who_reads_it(root, capsys):
    file = recipe_file(root)
    killed = forks.start(["train", file], root, prepare=at_step(4, send(signal.SIGKILL)))
    killed.wait()
    record = exit_record.read_exit(root / "run")
    assert (record.code, record.process, record.alive) == (None, killed.children[0], False)
    with claimed(root / "run"):
        assert str(killed.children[0]) in capsys.readouterr().err


@pytest.mark.parametrize("name", ["notes.txt", "versions.json", "recipe.yaml", "checkpoints/step-best/x"])
def test_a_folder_that_holds_something_else_is_left_as_it_is(tmp_path, name):
    file = tmp_path / "mine" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(OutputError), claimed(tmp_path / "mine"):
        pass
    assert [path for path in (tmp_path / "mine").rglob("*") if path.is_file()] == [file]
    assert file.read_text() == "mine"
    (tmp_path / "mine" / ".mvssl").write_text("")  # the way out
    with claimed(tmp_path / "mine"):
        assert file.read_text() == "mine"


def test_a_run_of_an_earlier_version_is_gone_on_with(root):
    train(tiny.recipe(root / "data", root / "run", train__steps=2))
    for name in (".mvssl", "checkpoints/step-00000002/recipe.yaml"):
        (root / "run" / name).unlink()
    manifest = root / "run/checkpoints/step-00000002/MANIFEST.json"
    entries = json.loads(manifest.read_text())
    del entries["recipe.yaml"]
    manifest.write_text(json.dumps(entries, indent=1))
    assert train(tiny.recipe(root / "data", root / "run", train__steps=4)).step == 4


@pytest.mark.parametrize("text", ["", "data: {", "a: 1\n"])
def test_a_damaged_recipe_of_a_run_gives_way_to_the_copy_in_its_checkpoint(root, text, capsys):
    from mvssl.runs.load import load_run

    train(tiny.recipe(root / "data", root / "run", train__steps=2))
    (root / "run" / "recipe.yaml").write_text(text)
    assert load_run(root / "run").step == 2
    assert "recipe.yaml" in capsys.readouterr().err
    assert train(tiny.recipe(root / "data", root / "run", train__steps=4)).step == 4


def test_a_check_that_was_interrupted_is_made_up_and_no_checkpoint_is_written_again(root):
    def prepare(_: int) -> None:
        look, steps = Checks._look, []

        def looked(self, stopped):
            steps.append(0)
            if len(steps) == 2:  # the first is before step 1
                os.kill(os.getpid(), signal.SIGTERM)
            return look(self, stopped)

        Checks._look = looked

    file = recipe_file(root, train__check_every=4, train__steps=6)
    stopped = forks.start(["train", file], root, prepare=prepare)
    assert stopped.wait() == {0: 143}, stopped.stderr()
    saved = root / "run/checkpoints/step-00000004"
    before = {path.name: (path.stat().st_ino, path.read_bytes()) for path in saved.iterdir()}
    assert forks.start(["train", file], root).wait() == {0: 0}
    assert {path.name: (path.stat().st_ino, path.read_bytes()) for path in saved.iterdir()} == before
    assert store.best(root / "run") in store.candidates(root / "run")
    assert set(json.loads((root / "run/checkpoints/held_out.json").read_text())) == {"4", "6"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGSTOP, 75), (signal.SIGKILL, 74)])
def test_loader_processes_that_hang_or_are_killed_in_a_check_end_the_run_with_all_saved(root, number, code):
    def prepare(_: int) -> None:
        from mvssl.monitoring import held_out

        see, batches = held_out._seen, []

        def seen(*given):
            batches.append(0)
            if len(batches) == 8:  # in the check after step 4
                for worker in psutil.Process().children():
                    worker.send_signal(number)
            return see(*given)

        held_out._seen = seen

    changes = {"train__check_every": 4, "train__hang_timeout": 2, "data__workers": 1, "data__label": None}
    ended = forks.start(["train", recipe_file(root, **changes)], root, prepare=prepare)
    assert ended.wait() == {0: code}, ended.stderr()
    assert newest_step(root / "run") == 4
    assert "Traceback" not in ended.stderr()


def test_a_stall_that_ends_by_itself_is_no_hang(root):
    """All processes stand still for longer than half the limit, and for a moment beyond the look at each other."""
    file = recipe_file(root, train__hang_timeout=4)
    run = forks.start(["train", file], root, world=2, prepare=at_step(4, lambda: time.sleep(3.4)))
    assert run.wait() == {0: 0, 1: 0}, run.stderr()


def test_a_first_batch_that_fails_leaves_no_checkpoint_that_binds_the_recipe(root):
    def prepare(_: int) -> None:
        from mvssl.data import ShardSource

        def fails(self, i):
            raise StorageError("the disk failed")

        ShardSource.__getitem__ = fails

    assert forks.start(["train", recipe_file(root)], root, prepare=prepare).wait() == {0: 74}
    assert store.candidates(root / "run") == []
    assert forks.start(["train", recipe_file(root, data__batch_size=4)], root).wait() == {0: 0}


def test_checks_on_a_full_disk_cost_no_step(root, monkeypatch, capsys):
    from mvssl.monitoring import check

    def full(*_: object) -> None:
        raise StorageError(os.strerror(errno.ENOSPC))

    monkeypatch.setattr(check, "write_file", full)
    train(tiny.recipe(root / "data", root / "run", train__steps=6, train__check_every=3, train__save_every=3))
    assert newest_step(root / "run") == 6
    assert "training goes on" in capsys.readouterr().err


def test_a_child_process_of_the_users_own_is_not_taken_for_a_loader_process():
    child = multiprocessing.Process(target=time.sleep, args=(60,))
    child.start()
    try:
        assert mvssl.data.workers.kill_workers() == ""
        assert child.is_alive()
    finally:
        child.kill()
        child.join()


def test_a_copier_of_pinned_memory_that_is_gone_is_no_endless_wait():
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


def test_an_error_of_the_reader_itself_is_no_failure_of_loader_processes():
    def broken():
        raise RuntimeError("a bug")
        yield

    with pytest.raises(RuntimeError, match="a bug"):
        mvssl.data.workers.next_batch(broken(), [], lambda: True)


def test_a_process_that_waits_for_its_data_is_named(root):
    file = recipe_file(root, train__log_every=4)

    def prepare(rank: int) -> None:
        from mvssl.data import ShardSource

        read = ShardSource.__getitem__
        if rank == 1:
            ShardSource.__getitem__ = lambda self, i: time.sleep(0.02) or read(self, i)

    run = forks.start(["train", file], root, world=2, prepare=prepare)
    assert run.wait() == {0: 0, 1: 0}, run.stderr()
    assert "process 1 waits for data" in run.stderr()
    train(tiny.recipe(root / "data", root / "straight", train__steps=12, train__log_every=4))
    runs = [[line["loss"] for line in tiny.metrics(root / out)] for out in ("run", "straight")]
    assert runs[0] == pytest.approx(runs[1], abs=1e-3)


def test_importing_nothing_is_needed_for_a_signal_to_have_its_code(root):
    """A signal during the seconds of imports."""
    for delay in (0.25, 0.6, 1.5):
        with subprocess.Popen(
            [sys.executable, "-m", "mvssl", "train", str(recipe_file(root))], stderr=subprocess.PIPE, text=True
        ) as process:
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            error = process.communicate(timeout=60)[1]
            assert process.returncode in (130, 0)
            assert "Traceback" not in error
