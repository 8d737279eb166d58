"""A run folder of an earlier mvssl, before its packages were rearranged, opens, and its numbers are what they were.

old_run/run was trained for 4 steps and evaluated; old_run/expected.json holds what that version measured afterwards.
"""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch.testing import assert_close

from mvssl import evaluate, export, load_run, report, train
from mvssl.checkpoints import store
from mvssl.evaluation.results.records import read
from mvssl.runs.exit_record import read_exit

OLD = Path(__file__).parent / "old_run"
EXPECTED = json.loads((OLD / "expected.json").read_text())


def write_shards(folder: Path) -> None:
    """Write the two shards of the run: arrays uint8 [3, 8, 8] with labels. No library decides on a byte of them."""
    folder.mkdir(parents=True)
    numbers = np.random.default_rng(0)
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (3, 8, 8), }"
    for shard in range(2):
        with tarfile.open(folder / f"{shard:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for key in range(16 * shard, 16 * shard + 16):
                array = (numbers.integers(0, 128, (3, 8, 8)) + 30 * (key % 4)).astype(np.uint8)
                npy = b"\x93NUMPY\x01\x00\x76\x00" + header.ljust(117) + b"\n" + array.tobytes()
                for field, body in (("npy", npy), ("cls", str(key % 4).encode())):
                    member = tarfile.TarInfo(f"{key:08d}.{field}")
                    member.size = len(body)
                    archive.addfile(member, io.BytesIO(body))


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """The run folder, in the working directory beside its data: its recipe names both by relative paths."""
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path / "data" / "train")
    shutil.copytree(OLD / "run", tmp_path / "run")
    return Path("run")


def vector_of(encoder: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return encoder(torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8))


def test_an_old_checkpoint_verifies_and_gives_the_same_features(run):
    assert [store.step_in_name(found) for found in store.list_checkpoints(run)] == [4, 2]
    assert not [fault for found in store.list_checkpoints(run) for fault in store.find_damage(found)]
    loaded = load_run(run)
    assert loaded.step == 4
    assert store.best(run).name == "step-00000004"
    assert_close(vector_of(loaded.model.encoder_of("image")).vector[0], torch.tensor(EXPECTED["vector"]))
    assert read_exit(run).code == 0


def test_an_old_run_continues_with_the_same_losses(run):
    outcome = train(run / "recipe.yaml", ["train.steps=6"])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = {str(line["step"]): line["loss"] for line in lines if "loss" in line}
    assert sorted(losses) == ["1", "2", "3", "4", "5", "6"]
    assert {step: losses[step] for step in ("5", "6")} == pytest.approx(EXPECTED["loss"], rel=1e-5)
    held_out = {str(line["step"]): line["val/loss"] for line in lines if "val/loss" in line}
    assert held_out["6"] == pytest.approx(EXPECTED["held_out_loss"]["6"], rel=1e-5)
    assert outcome.step == 6


def test_an_old_run_is_evaluated_with_the_same_result(run):
    before = {record["encoder"]: record for record in read(run / "evaluation.json")}
    records = {record["encoder"]: record for record in evaluate(run, show=False)}
    assert {name: record["value"] for name, record in records.items()} == pytest.approx(EXPECTED["knn"], abs=1 / 32)
    assert {name: set(record) for name, record in records.items()} == {name: set(r) for name, r in before.items()}
    assert len(read(run / "evaluation.json")) == 3  # the new records took the place of the old ones


def test_an_old_run_is_exported_with_its_old_scores(run):
    (made,) = export(run, "backbone")
    assert made.max_difference < 1e-5
    model = timm.create_model("local-dir:backbone", pretrained=True, num_classes=0).eval()
    assert_close(vector_of(model)[0], torch.tensor(EXPECTED["vector"]))
    assert "knn" in Path("backbone/README.md").read_text()


def test_the_report_on_an_old_run_is_complete(run):
    written = report(run)
    assert not written.left_out
    text = written.file.read_text()
    for part in ("65.6", "critic uninformative", "Nearest neighbours"):
        assert part in text
