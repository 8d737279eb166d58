"""Disks that are full or read-only, and files that are damaged, while a run needs them."""

import hashlib
import json
import os
import pickle
import subprocess
import tarfile
from pathlib import Path

import forked_commands
import pytest
import small_runs
import torch
from disturbing import at_step, newest_step, recipe_file
from small_runs import trained

from mvssl import train
from mvssl.checkpoints import store
from mvssl.data import loader, open_shards
from mvssl.errors import DataError, RecipeError
from mvssl.pipeline import api
from mvssl.runs import exit_record
from mvssl.training.step import Trainer


@pytest.fixture
def root(tmp_path):
    small_runs.write_shards(tmp_path / "data" / "train")
    return tmp_path


@pytest.fixture
def small_disk(root):
    """A disk of 1 MB in place of root/run."""
    disk = root / "run"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"mounting a small disk needs root: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def fill(disk: Path) -> None:
    with open(disk / ".ballast", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass


@pytest.mark.parametrize("for_good", [False, True])
def test_a_full_disk_ends_a_run_only_if_it_stays_full(root, small_disk, for_good):
    def prepare(rank: int) -> None:
        at_step(5, lambda: fill(small_disk))(rank)
        if not for_good:
            at_step(9, lambda: (small_disk / ".ballast").unlink())(rank)

    file = recipe_file(root, train__save_every=2, train__log_every=1)
    run = forked_commands.start(["train", file], root, prepare=prepare)
    assert run.wait() == {0: 74 if for_good else 0}, run.stderr()
    assert newest_step(small_disk) == (4 if for_good else 12)
    assert exit_record.read_exit(small_disk).code == (74 if for_good else 0)
    assert not list((small_disk / "checkpoints").glob(".*"))
    if for_good:
        (small_disk / ".ballast").unlink()
        assert forked_commands.start(["train", file], root).wait() == {0: 0}
    assert [line["step"] for line in small_runs.metrics(small_disk)] == list(range(1, 13))


def test_a_read_only_folder_exits_with_73_before_data_are_read(root, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    (root / "data" / "train" / "000000.tar").unlink()
    refused = forked_commands.start(["train", recipe_file(root)], root)
    assert refused.wait() == {0: 73}
    assert "Read-only file system" in refused.stderr()


def test_any_changed_byte_of_a_checkpoint_is_detected(tmp_path):
    model, optimizer = trained(0)
    for step in (1, 2):
        found = store.save_checkpoint(tmp_path, step, model, optimizer, {}, keep=2, recipe="a: 1\n")
    for file in found.iterdir():
        body = file.read_bytes()
        for place in range(0, len(body), 1 if file.name == store.MANIFEST else 7):
            file.write_bytes(body[:place] + bytes([body[place] ^ 1 << place % 8]) + body[place + 1 :])
            assert store.find_damage(found), (file.name, place)
        file.write_bytes(body)
    assert not store.find_damage(found)


def test_each_missing_or_empty_file_of_a_checkpoint_is_detected(tmp_path):
    model, optimizer = trained(0)
    found = store.save_checkpoint(tmp_path, 1, model, optimizer, {}, keep=2, recipe="a: 1\n")
    for file in list(found.iterdir()):
        body = file.read_bytes()
        file.write_bytes(b"")
        assert store.find_damage(found)
        file.unlink()
        assert store.find_damage(found)
        file.write_bytes(body)
    assert not store.find_damage(found)


class Sentinel:
    def __init__(self, file: Path):
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, "w")


def test_a_pickle_in_place_of_weights_is_refused_and_not_run(root):
    train(small_runs.recipe(root / "data", root / "run", train__steps=2))
    found = store.newest(root / "run")
    torch.save(Sentinel(root / "was run"), root / "weights.pt")
    bodies = [pickle.dumps(Sentinel(root / "was run")), (root / "weights.pt").read_bytes()]
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        before, manifest = (found / name).read_bytes(), (found / store.MANIFEST).read_bytes()
        for body in bodies:
            (found / name).write_bytes(body)
            entries = json.loads(manifest)
            entries[name] = {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)}
            (found / store.MANIFEST).write_bytes(json.dumps(entries, indent=1).encode())
            with pytest.raises(DataError):
                train(small_runs.recipe(root / "data", root / "run", train__steps=4))
        (found / name).write_bytes(before)
        (found / store.MANIFEST).write_bytes(manifest)
    assert not (root / "was run").exists()


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("loss", ["empty", "gone"])
def test_samples_of_a_shard_lost_during_a_run_are_counted(root, loss, workers):
    given = small_runs.tables(root / "data", root / "run", data__workers=workers, train__steps=5)
    shard = root / "data/train/000002.tar"

    def prepare(_: int) -> None:
        plain = api.prepare

        def prepared(*given):
            trainer, earlier = plain(*given)
            trainer.source._reader = type(trainer.source._reader)()  # or an open shard is read to the end of the run
            os.truncate(shard, 0) if loss == "empty" else shard.unlink()
            return trainer, earlier

        api.prepare = prepared

    source = open_shards("train", root / "data", small_runs.parse_recipe(given).data.columns)
    lost = {
        source.key(i) for b in loader(source, batch_size=8, seed=0, stop_step=5) for i in b.index.tolist() if i > 32
    }
    run = forked_commands.start(
        ["train", recipe_file(root, data__workers=workers, train__steps=5)], root, prepare=prepare
    )
    assert run.wait() == {0: 0}, run.stderr()
    lines = [json.loads(line) for line in (root / "run/bad.jsonl").read_text().splitlines()]
    assert sorted(line["key"] for line in lines) == sorted(lost)
    assert len(lines) == store.load_state(store.newest(root / "run")).bad == 7


@pytest.mark.parametrize("loss", ["empty", "gone"])
def test_a_shard_lost_before_a_run_ends_it_with_its_name(root, loss):
    shard = root / "data/train/000001.tar"
    shard.write_bytes(b"") if loss == "empty" else shard.unlink()
    run = forked_commands.start(["train", recipe_file(root, data__train="train/{000000..000002}.tar")], root)
    assert run.wait() == {0: 65}
    assert "000001.tar" in run.stderr()


def test_too_many_bad_samples_end_all_processes_after_the_same_step(root):
    shard = root / "data/train/000001.tar"
    with tarfile.open(shard) as tar:
        places = [member.offset_data for member in tar if member.name.endswith(".png") and "depth" not in member.name]
    with open(shard, "r+b") as file:
        for place in places[:4]:
            file.seek(place)
            file.write(bytes(8))

    def prepare(rank: int) -> None:
        step = Trainer.step

        def stepped(self, batch, number, *given, **keywords):
            (root / f"step-{rank}").write_text(str(number))
            return step(self, batch, number, *given, **keywords)

        Trainer.step = stepped

    run = forked_commands.start(["train", recipe_file(root, data__max_bad=0.0001)], root, 2, prepare)
    assert run.wait(grace=None) == {0: 65, 1: 65}
    assert (root / "step-0").read_text() == (root / "step-1").read_text()
    assert newest_step(root / "run") == int((root / "step-0").read_text()) + 1
    assert "000001.tar key" in exit_record.read_exit(root / "run").reason


@pytest.mark.parametrize("change", ["added", "header", "body"])
def test_shards_that_changed_are_refused(root, change):
    train(small_runs.recipe(root / "data", root / "run", train__steps=2))
    shard = root / "data/train/000001.tar"
    if change == "added":
        small_runs.rename_samples(shard, shard.with_name("000003.tar"), "x")
    else:
        with tarfile.open(shard) as tar:
            member = next(member for member in tar if member.name.endswith(".cls"))
        with open(shard, "r+b") as file:
            file.seek(member.offset_data if change == "body" else 0)
            file.write(b"3" if change == "body" else b"9")
    again = small_runs.recipe(root / "data", root / "run", train__steps=4)
    if change == "header":
        with pytest.raises(DataError, match="000001"):
            train(again)
    else:
        with pytest.raises(RecipeError, match="trained on other data"):
            train(again)


def test_changed_versions_are_reported_and_recorded(root, capsys):
    train(small_runs.recipe(root / "data", root / "run", train__steps=2))
    file = root / "run" / "versions.json"
    now = json.loads(file.read_text())
    file.write_text(json.dumps({**now, "torch": "1.0"}))
    train(small_runs.recipe(root / "data", root / "run", train__steps=4))
    assert f"version of torch: 1.0 -> {now['torch']}" in capsys.readouterr().err
    assert json.loads(file.read_text()) == now
