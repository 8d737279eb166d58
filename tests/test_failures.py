"""Full disks, exhausted memory, removed and damaged files: the run saves, explains and can continue."""

import errno
import json
import os
import shutil
import signal

import forked_commands
import pytest
import small_runs
from disturbing import at_step, newest_step, recipe_file, send

from mvssl import train
from mvssl.checkpoints import store
from mvssl.errors import OutputError, StorageError
from mvssl.runs import exit_record
from mvssl.runs.folder import claimed


@pytest.fixture
def root(tmp_path):
    small_runs.write_shards(tmp_path / "data" / "train")
    return tmp_path


def test_the_third_failed_save_in_a_row_ends_the_run(root, monkeypatch, capsys):
    save, left = store.write_checkpoint, [2]

    def failing(*given, **keywords):
        left[0] -= 1
        if left[0] >= 0:
            raise StorageError(os.strerror(errno.ENOSPC))
        return save(*given, **keywords)

    monkeypatch.setattr(store, "write_checkpoint", failing)
    train(small_runs.recipe(root / "data", root / "run", train__steps=12, train__save_every=3, train__keep=9))
    assert [store.step_in_name(found) for found in store.list_checkpoints(root / "run")] == [12, 9]
    assert "training goes on" in capsys.readouterr().err
    left[0] = 3
    with pytest.raises(StorageError):
        train(small_runs.recipe(root / "data", root / "other", train__steps=12, train__save_every=3))


def test_a_removed_run_folder_ends_the_run(root):
    gone = forked_commands.start(
        ["train", recipe_file(root)], root, prepare=at_step(4, lambda: shutil.rmtree(root / "run"))
    )
    assert gone.wait() == {0: 74}, gone.stderr()
    assert "Traceback" not in gone.stderr()


def test_exhausted_memory_names_the_key_to_lower(root):
    def starve() -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")

    for world in (1, 2):
        file = recipe_file(root, f"run{world}")
        ended = forked_commands.start(["train", file], root, world=world, prepare=at_step(4, starve, rank=world - 1))
        assert ended.wait(grace=5)[world - 1] == 74, ended.stderr()
        reason = exit_record.read_exit(root / f"run{world}").reason
        assert "data.batch_size" in reason
        assert (f"process {world - 1} of 2" in reason) == (world == 2)


def test_a_killed_run_is_noticed_later(root, capsys):
    file = recipe_file(root)
    killed = forked_commands.start(["train", file], root, prepare=at_step(4, send(signal.SIGKILL)))
    killed.wait()
    record = exit_record.read_exit(root / "run")
    assert (record.code, record.process, record.alive) == (None, killed.children[0], False)
    with claimed(root / "run"):
        assert str(killed.children[0]) in capsys.readouterr().err


@pytest.mark.parametrize("name", ["notes.txt", "versions.json", "recipe.yaml", "checkpoints/step-best/x"])
def test_a_folder_with_other_files_is_not_changed(tmp_path, name):
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


def test_a_run_of_an_earlier_version_continues(root):
    train(small_runs.recipe(root / "data", root / "run", train__steps=2))
    for name in (".mvssl", "checkpoints/step-00000002/recipe.yaml"):
        (root / "run" / name).unlink()
    manifest = root / "run/checkpoints/step-00000002/MANIFEST.json"
    entries = json.loads(manifest.read_text())
    del entries["recipe.yaml"]
    manifest.write_text(json.dumps(entries, indent=1))
    assert train(small_runs.recipe(root / "data", root / "run", train__steps=4)).step == 4


@pytest.mark.parametrize("text", ["", "data: {", "a: 1\n"])
def test_a_damaged_recipe_is_replaced_by_the_copy_in_the_checkpoint(root, text, capsys):
    from mvssl.runs.load import load_run

    train(small_runs.recipe(root / "data", root / "run", train__steps=2))
    (root / "run" / "recipe.yaml").write_text(text)
    assert load_run(root / "run").step == 2
    assert "recipe.yaml" in capsys.readouterr().err
    assert train(small_runs.recipe(root / "data", root / "run", train__steps=4)).step == 4


def test_a_failed_first_batch_leaves_no_checkpoint(root):
    def prepare(_: int) -> None:
        from mvssl.data import ShardSource

        def fails(self, i):
            raise StorageError("the disk failed")

        ShardSource.__getitem__ = fails

    assert forked_commands.start(["train", recipe_file(root)], root, prepare=prepare).wait() == {0: 74}
    assert store.list_checkpoints(root / "run") == []
    assert forked_commands.start(["train", recipe_file(root, data__batch_size=4)], root).wait() == {0: 0}


def test_checks_on_a_full_disk_cost_no_step(root, monkeypatch, capsys):
    from mvssl.monitoring import check

    def full(*_: object) -> None:
        raise StorageError(os.strerror(errno.ENOSPC))

    monkeypatch.setattr(check, "write_file", full)
    train(small_runs.recipe(root / "data", root / "run", train__steps=6, train__check_every=3, train__save_every=3))
    assert newest_step(root / "run") == 6
    assert "training goes on" in capsys.readouterr().err
