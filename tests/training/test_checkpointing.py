"""Saves beside the loop: training goes on, what is written is the moment of the copy, and failures count as before."""

import signal
import threading

import forked_commands
import pytest
import small_runs
import torch
from disturbing import at_step, newest_step, recipe_file, same_weights, send

from mvssl import train
from mvssl.checkpoints import store
from mvssl.errors import StorageError
from mvssl.training import checkpointing
from mvssl.training.step import Trainer


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small_runs.write_shards(tmp_path_factory.mktemp("shards") / "train").parent


@pytest.fixture
def root(tmp_path, data):
    (tmp_path / "data").symlink_to(data)
    return tmp_path


@pytest.fixture(scope="module")
def straight(tmp_path_factory, data):
    """A run that nobody disturbed, with a checkpoint of each third step."""
    folder = tmp_path_factory.mktemp("straight")
    train(small_runs.recipe(data, folder / "run", train__steps=12, train__save_every=3, train__keep=9))
    return folder / "run"


def recipe(root, **changes):
    changes = {"train__steps": 12, "train__save_every": 3, "train__keep": 9, **changes}
    return small_runs.recipe(root / "data", root / "run", **changes)


def wait_in_writes_until_step(monkeypatch, number: int, first: int) -> list[tuple[int, int]]:
    """Let the write of step `first` wait until `number` steps are done; returns (step, steps done at its end)."""
    write, step, reached, seen, done = store.write_checkpoint, Trainer.step, threading.Event(), [], [0]

    def waiting(run, saved, *given):
        if saved == first:
            assert reached.wait(30)
        made = write(run, saved, *given)
        seen.append((saved, done[0]))
        return made

    def stepped(self, batch, now, **keywords):
        made = step(self, batch, now, **keywords)
        done[0] = now + 1
        if now + 1 == number:
            reached.set()
        return made

    monkeypatch.setattr(store, "write_checkpoint", waiting)
    monkeypatch.setattr(Trainer, "step", stepped)
    return seen


def test_steps_are_taken_during_a_save_and_it_holds_the_weights_of_its_own_step(root, straight, monkeypatch):
    seen = wait_in_writes_until_step(monkeypatch, 5, first=3)
    train(recipe(root))
    assert seen[0][0] == 3
    assert seen[0][1] >= 5
    for step in (3, 6, 9, 12):
        assert same_weights(root / "run", straight, step)
        for name in ("optimizer", "model"):
            ours, theirs = small_runs.weights(root / "run", step, name), small_runs.weights(straight, step, name)
            assert small_runs.same_bits(ours, theirs)
        assert store.load_state(root / "run" / "checkpoints" / f"step-{step:08d}") == store.load_state(
            straight / "checkpoints" / f"step-{step:08d}"
        )


def test_a_save_waits_for_the_one_before(root, straight, monkeypatch):
    write, running, most = store.write_checkpoint, [0], [0]

    def counted(*given):
        running[0] += 1
        most[0] = max(most[0], running[0])
        try:
            return write(*given)
        finally:
            running[0] -= 1

    monkeypatch.setattr(store, "write_checkpoint", counted)
    train(recipe(root, train__save_every=1, train__keep=12))
    assert most == [1]
    assert [store.step_in_name(found) for found in store.list_checkpoints(root / "run")] == list(range(12, 0, -1))
    assert same_weights(root / "run", straight, 9)


def test_without_room_for_copies_training_waits_and_the_files_are_the_same(root, straight, monkeypatch, capsys):
    monkeypatch.setattr(checkpointing, "claim_buffer", lambda *_: None)
    write, step, during = store.write_checkpoint, Trainer.step, []

    def stepped(self, batch, now, **keywords):
        assert not during
        return step(self, batch, now, **keywords)

    def writing(*given):
        during.append(1)
        made = write(*given)
        during.clear()
        return made

    monkeypatch.setattr(store, "write_checkpoint", writing)
    monkeypatch.setattr(Trainer, "step", stepped)
    train(recipe(root))
    assert "training waits during each save" in capsys.readouterr().err
    for step_number in (3, 12):
        for name in ("model", "optimizer"):
            file = f"checkpoints/step-{step_number:08d}/{name}.safetensors"
            assert (root / "run" / file).read_bytes() == (straight / file).read_bytes()


def test_after_a_failed_save_the_next_ones_wait_and_the_third_failure_ends_the_run(root, monkeypatch, capsys):
    steps, step = [], Trainer.step

    def failing(run, number, *_):
        steps.append(number)
        raise StorageError("the disk is full")

    monkeypatch.setattr(store, "write_checkpoint", failing)
    done = []
    monkeypatch.setattr(
        Trainer, "step", lambda self, batch, now, **given: (done.append(now + 1), step(self, batch, now, **given))[1]
    )
    with pytest.raises(StorageError, match="the disk is full"):
        train(recipe(root))
    assert steps[:3] == [3, 6, 9]
    assert done[-1] == 9  # as if every save had waited
    assert "1 of 3 failures" in capsys.readouterr().err


def test_a_write_that_is_under_way_when_training_fails_is_completed(root, straight, monkeypatch):
    write, begun = store.write_checkpoint, threading.Event()

    def slow(*given):
        begun.set()
        threading.Event().wait(0.3)
        return write(*given)

    def fails(self, batch, now, **keywords):
        if now == 3:
            assert begun.wait(30)
            raise ValueError("a mistake of the user's code")
        return step(self, batch, now, **keywords)

    step = Trainer.step
    monkeypatch.setattr(store, "write_checkpoint", slow)
    monkeypatch.setattr(Trainer, "step", fails)
    with pytest.raises(ValueError, match="user's code"):
        train(recipe(root))
    assert newest_step(root / "run") == 3
    assert same_weights(root / "run", straight, 3)


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("kind", ["kill", "stop"])
def test_a_signal_between_the_copy_and_the_manifest_loses_nothing_that_was_saved(root, world, kind):
    number = signal.SIGKILL if kind == "kill" else signal.SIGTERM

    def prepare(rank: int) -> None:
        write = store._write_hashed

        def slow(file, parts):  # steps 7 and later are taken while step 6 is being written
            if file.parent.name.startswith(".writing-step-00000006"):
                threading.Event().wait(0.5)
            return write(file, parts)

        store._write_hashed = slow
        at_step(7, send(number), rank=0)(rank)

    file = recipe_file(root, train__save_every=3)
    ended = forked_commands.start(["train", file], root, world, prepare)
    codes = ended.wait()
    assert codes[0] == (-9 if kind == "kill" else 143), ended.stderr()
    assert newest_step(root / "run") == (3 if kind == "kill" else 9)  # votes are read a step later
    assert forked_commands.start(["train", file], root, world).wait() == dict.fromkeys(range(world), 0)
    left = [path.name for path in (root / "run" / "checkpoints").iterdir()]
    assert not [name for name in left if name.startswith(".")]
    plain = recipe_file(root, "plain")
    assert forked_commands.start(["train", plain], root, world).wait() == dict.fromkeys(range(world), 0)
    assert same_weights(root / "run", root / "plain", 12)


def test_failed_saves_end_both_processes_after_the_same_step(root):
    def prepare(_: int) -> None:
        def failing(*_: object) -> None:
            raise StorageError("the disk is full")

        store.write_checkpoint = failing

    ended = forked_commands.start(["train", recipe_file(root, train__save_every=3)], root, 2, prepare)
    assert ended.wait(grace=None) == {0: 74, 1: 74}, ended.stderr(0) + ended.stderr(1)
    assert "the disk is full" in ended.stderr(0)


def test_the_held_out_loss_of_a_check_belongs_to_the_complete_checkpoint(root, monkeypatch):
    write = store.write_checkpoint

    def slow(*given):
        threading.Event().wait(0.2)
        return write(*given)

    monkeypatch.setattr(store, "write_checkpoint", slow)
    train(recipe(root, train__check_every=2, train__keep=2))
    losses = {step: line["val/loss"] for step, line in small_runs.checks(root / "run").items() if step}
    best = min(losses, key=lambda step: losses[step])
    assert store.step_in_name(store.best(root / "run")) == best
    assert torch.isfinite(torch.tensor(losses[best]))
