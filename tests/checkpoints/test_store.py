"""Checkpoints: complete or absent, found again, and exact."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
from small_runs import trained

from mvssl.checkpoints import store
from mvssl.errors import DataError, StorageError


def test_a_restored_checkpoint_equals_the_saved_one_bit_for_bit(tmp_path: Path):
    model, optimizer = trained(0)
    saved = store.save_checkpoint(tmp_path, 5, model, optimizer, {"bad": 3}, keep=2)
    other, other_optimizer = trained(1)
    assert store.load_into(saved, other, other_optimizer) == store.State(step=5, bad=3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        for key in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[a][key], other_optimizer.state[b][key])


def test_the_newest_are_kept_and_the_rest_deleted(tmp_path: Path):
    model, optimizer = trained(0)
    for step in (1, 2, 3, 10):
        store.save_checkpoint(tmp_path, step, model, optimizer, {}, keep=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000003", "step-00000010"]
    assert store.newest(tmp_path).name == "step-00000010"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", store.MANIFEST])
@pytest.mark.parametrize("harm", ["flip", "cut", "delete"])
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path: Path, name: str, harm: str):
    model, optimizer = trained(0)
    for step in (1, 2):
        store.save_checkpoint(tmp_path, step, model, optimizer, {}, keep=2)
    file = tmp_path / "checkpoints" / "step-00000002" / name
    body = bytearray(file.read_bytes())
    if harm == "flip":
        body[len(body) // 2] ^= 0x10
        file.write_bytes(body)
    elif harm == "cut":
        file.write_bytes(body[: len(body) // 2])
    else:
        file.unlink()
    assert store.newest(tmp_path).name == "step-00000001"
    (tmp_path / "checkpoints" / "step-00000001" / "model.safetensors").unlink()
    with pytest.raises(DataError, match="no checkpoint"):
        store.newest(tmp_path)


def test_a_damaged_newer_checkpoint_does_not_count_as_kept(tmp_path: Path):
    model, optimizer = trained(0)
    for step in (1, 5):
        store.save_checkpoint(tmp_path, step, model, optimizer, {}, keep=2)
    (tmp_path / "checkpoints" / "step-00000005" / "model.safetensors").unlink()
    store.save_checkpoint(tmp_path, 2, model, optimizer, {}, keep=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-00000001", "step-00000002"]


def checked(folder: Path, losses: dict[int, float | None], of: str = "val") -> list[int]:
    """Save these steps with their held-out losses, keeping two; the steps that are left."""
    model, optimizer = trained(0)
    for step, loss in losses.items():
        state = {} if loss is None else {"held_out": {"loss": loss, "of": of}}
        store.save_checkpoint(folder, step, model, optimizer, state, keep=2)
    return sorted(int(p.name.removeprefix("step-")) for p in (folder / "checkpoints").iterdir())


def test_the_best_is_kept_beside_the_newest(tmp_path: Path):
    assert checked(tmp_path, {1: 3.0, 2: 1.0, 3: 2.0, 4: None, 5: 1.0, 6: 4.0, 7: None}) == [2, 6, 7]
    assert store.best(tmp_path).name == "step-00000002"  # of equals the earlier
    assert store.newest(tmp_path).name == "step-00000007"
    assert store.would_be_best(tmp_path, store.HeldOutLoss(loss=0.9, of="val"))
    assert not store.would_be_best(tmp_path, store.HeldOutLoss(loss=1.0, of="val"))


def test_a_loss_on_other_samples_does_not_compare(tmp_path: Path):
    checked(tmp_path, {1: 0.1})
    assert store.would_be_best(tmp_path, store.HeldOutLoss(loss=5.0, of="other"))
    assert checked(tmp_path, {2: 5.0, 3: 6.0, 4: 7.0}, of="other") == [2, 3, 4]
    assert store.best(tmp_path).name == "step-00000002"


def test_the_best_is_chosen_among_the_remaining_checkpoints(tmp_path: Path):
    assert checked(tmp_path, {1: 3.0, 2: 2.0, 3: 1.0}) == [2, 3]
    (tmp_path / "checkpoints" / "step-00000003" / "model.safetensors").unlink()
    assert store.best(tmp_path).name == store.newest(tmp_path).name == "step-00000002"
    assert checked(tmp_path, {3: 2.5, 4: 2.6}) == [2, 3, 4]
    assert store.best(tmp_path).name == "step-00000002"


def test_a_run_that_was_never_checked_has_no_best(tmp_path: Path):
    checked(tmp_path, {1: None})
    with pytest.raises(DataError, match="--checkpoint last"):
        store.best(tmp_path)


def test_a_new_run_has_no_checkpoint(tmp_path: Path):
    assert store.newest(tmp_path) is None


SAVER = """
    import sys; sys.path.insert(0, {tests!r})
    from pathlib import Path
    from small_runs import trained
    from mvssl.checkpoints import store
    model, optimizer = trained(0)
    for step in range(1, 100000):
        store.save_checkpoint(Path({run!r}), step, model, optimizer, {{}}, keep=2)
        print(step, flush=True)
"""


def saver(run: Path, before: str = "") -> list[str]:
    text = before + textwrap.dedent(SAVER.format(tests=str(Path(__file__).parents[1] / "support"), run=str(run)))
    return [sys.executable, "-c", text]


def test_kill_9_at_any_moment_loses_no_acknowledged_step(tmp_path: Path):
    for delay in (0.0, 0.003, 0.011, 0.02):
        with subprocess.Popen(saver(tmp_path), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            os.kill(process.pid, signal.SIGKILL)
            acknowledged = [int(line) for line in process.stdout.read().split()] or [1]
        found = store.newest(tmp_path)
        assert found is not None
        assert int(found.name.removeprefix("step-")) >= acknowledged[-1]


def test_a_write_that_fails_leaves_the_earlier_checkpoint_and_no_debris(tmp_path: Path):
    model, optimizer = trained(0)
    store.save_checkpoint(tmp_path, 1, model, optimizer, {}, keep=2)
    limit = "import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
    quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(saver(tmp_path, limit), capture_output=True, text=True, env=quiet)
    assert StorageError.__name__ in done.stderr
    assert "earlier ones are intact" in done.stderr
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert store.newest(tmp_path) is not None
