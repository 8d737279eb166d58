"""Checks: training stays the same, all processes agree, and results and the best checkpoint are kept."""

import io
import json
import signal
import tarfile
from pathlib import Path

import forked_commands
import pytest
import small_runs
import torch

from mvssl import train
from mvssl.cli.main import main
from mvssl.errors import DataError, RecipeError
from mvssl.evaluation import Subject
from mvssl.monitoring import held_out
from mvssl.monitoring.held_out import open_held_out
from mvssl.runs.load import load_run
from mvssl.training.accelerator import make_accelerator
from mvssl.training.preparation import prepare_trainer

# batch norm, and drop-path, which draws from torch's generator: both would show a check's trace
DROPPING = {"name": "resnet18", "options": {"channels": [8, 8, 8, 8], "drop_path_rate": 0.5}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    small_runs.write_shards(folder / "train")
    small_runs.write_shards(folder / "val", counts=(17, 12), size=8)
    return folder


def tables(root: Path, out: Path, **changes) -> dict:
    given = {"data__val": "val/*.tar", "encoder": DROPPING, "optim__schedule": "constant", "train__check_every": 2}
    return small_runs.tables(root, out, **{**given, **changes})


@pytest.mark.parametrize("world", [1, 2])
def test_a_run_with_checks_trains_the_weights_of_one_without_bit_for_bit(root, tmp_path, processes, world):
    for every in (0, 1):
        small_runs.train_on(processes, world, tables(root, tmp_path / str(every), train__check_every=every))
    for steps in (3, 6):  # and one that was interrupted
        small_runs.train_on(processes, world, tables(root, tmp_path / "halves", train__steps=steps))
    for name in ("model", "optimizer"):
        without = small_runs.weights(tmp_path / "0", 6, name)
        for other in ("1", "halves"):
            assert small_runs.same_bits(without, small_runs.weights(tmp_path / other, 6, name))
    assert not small_runs.checks(tmp_path / "0")
    assert list(small_runs.checks(tmp_path / "1")) == [0, 1, 2, 3, 4, 5, 6]
    assert small_runs.checks(tmp_path / "halves")[6] == small_runs.checks(tmp_path / "1")[6]
    assert [line["loss"] for line in small_runs.metrics(tmp_path / "0")] == [
        line["loss"] for line in small_runs.metrics(tmp_path / "1")
    ]


def test_two_processes_find_what_one_finds(root, tmp_path, processes):
    plain = {"name": "resnet18", "options": {"channels": [8, 8, 8, 8]}}
    for world in (1, 2):
        small_runs.train_on(processes, world, tables(root, tmp_path / str(world), encoder=plain, train__steps=4))
    one, two = (small_runs.checks(tmp_path / str(world)) for world in (1, 2))
    assert one.keys() == two.keys()
    for step, values in one.items():
        assert two[step] == pytest.approx(values, rel=2e-3, abs=2e-3)


def test_a_check_depends_on_weights_only_and_keeps_modes_and_buffers(root, tmp_path):
    recipe = small_runs.parse_recipe(tables(root, tmp_path / "run"))
    trainer = prepare_trainer(recipe, make_accelerator(recipe))
    held = open_held_out(trainer)
    trainer.model.encoders["image"].model.layer1.eval()  # a part that its user keeps in eval mode
    modes = [module.training for module in trainer.model.modules()]
    buffers = {name: buffer.clone() for name, buffer in trainer.model.named_buffers()}
    first, features = held_out.measure(trainer, held)
    torch.rand(7)
    again, _ = held_out.measure(trainer, held)
    assert first == again
    assert [module.training for module in trainer.model.modules()] == modes
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in trainer.model.named_buffers())
    assert len(features.index) == held.samples == 24
    for parameter in trainer.model.parameters():
        parameter.data += 0.01
    assert held_out.measure(trainer, held)[0]["loss"] != first["loss"]


def test_buffers_are_restored_even_if_eval_mode_changes_them():
    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.register_buffer("calls", torch.zeros(()))

    model = Counting()
    with held_out.evaluation_mode(model):
        assert not torch.is_grad_enabled()
        assert not model.training
        model.calls += 1
    assert model.calls == 0
    assert model.training


def watched(root: Path, folder: Path, out: str, time: int, number: int) -> dict:
    caller = {"time": time, "signal": number, "marker": str(folder / f"marker-{out}"), "from": "image"}
    views = {"image": {**caller, "name": "fault_views:Caller", "count": 2}}
    return tables(root, folder / out, views=views, train__save_every=2)


@pytest.fixture(scope="module")
def straight(root, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    (folder / "marker-run").touch()
    train(small_runs.parse_recipe(watched(root, folder, "run", 1, 0)))
    return folder / "run"


@pytest.mark.parametrize(
    ("time", "number", "message"),
    [
        (2, signal.SIGTERM, "before the first step"),
        (13, signal.SIGTERM, "stopped at step 2 of 6, saved"),
        (13, signal.SIGKILL, ""),
    ],
)
def test_a_signal_in_a_check_stops_the_run_and_the_check_is_repeated(root, tmp_path, straight, time, number, message):
    given = watched(root, tmp_path, "run", time, int(number))
    left = forked_commands.train(given, tmp_path)
    assert left.wait() == {0: 143 if number == signal.SIGTERM else -9}, left.stderr()
    assert message in left.stderr()
    if message:
        assert json.loads((tmp_path / "run" / "exit.json").read_text())["code"] == 143
    train(small_runs.parse_recipe(given))
    assert small_runs.checks(tmp_path / "run") == small_runs.checks(straight)
    assert small_runs.same_bits(small_runs.weights(tmp_path / "run", 6), small_runs.weights(straight, 6))
    assert load_run(tmp_path / "run", ["fault_views"], "best").step == load_run(straight, ["fault_views"], "best").step


def test_the_best_checkpoint_is_kept_and_can_be_loaded(root, tmp_path):
    given = tables(root, tmp_path / "run", train__steps=12, train__check_every=1, train__save_every=12, optim__lr=0.03)
    train(small_runs.parse_recipe(given))
    losses = {step: line["val/loss"] for step, line in small_runs.checks(tmp_path / "run").items() if step}
    best = min(losses, key=losses.__getitem__)
    assert best < 11, "the run is no example: its best step is among the last two"
    run = load_run(tmp_path / "run", checkpoint="best")
    assert run.step == best
    assert Subject.of_run(run).facts["chosen"] == "by held-out loss on data.val"
    assert "chosen" not in Subject.of_run(load_run(tmp_path / "run")).facts
    kept = json.loads((tmp_path / "run/checkpoints/held_out.json").read_text())[str(best)]
    assert kept["loss"] == pytest.approx(losses[best])
    assert load_run(tmp_path / "run").step == load_run(tmp_path / "run", checkpoint="12").step == 12
    with pytest.raises(DataError, match=rf"no checkpoint of step 99 \(there are: {best}, "):
        load_run(tmp_path / "run", checkpoint=99)
    with pytest.raises(RecipeError, match="last, best, or the number of a step"):
        load_run(tmp_path / "run", checkpoint="first")
    main(["export", str(tmp_path / "run"), str(tmp_path / "backbone"), "--checkpoint", "best"])
    assert json.loads((tmp_path / "backbone" / "config.json").read_text())["mvssl"]["step"] == best
    given["train"]["steps"] = 13  # going on does not lose it
    train(small_runs.parse_recipe(given))
    assert load_run(tmp_path / "run", checkpoint="best").step == best


def test_loading_the_best_of_a_run_without_checks_is_an_error(root, tmp_path):
    train(small_runs.parse_recipe(tables(root, tmp_path / "run", train__check_every=0, train__steps=2)))
    assert not (tmp_path / "run" / "verdict.json").exists()
    with pytest.raises(DataError, match="--checkpoint last"):
        load_run(tmp_path / "run", checkpoint="best")


def test_without_held_out_shards_only_features_are_checked(root, tmp_path):
    outcome = train(small_runs.parse_recipe(tables(root, tmp_path / "run", data__val=[])))
    line = small_runs.checks(tmp_path / "run")[6]
    assert {"rank/image", "spread/image"} < line.keys()
    assert not any(name.startswith("val/") for name in line)
    assert outcome.diagnosis is not None
    assert outcome.diagnosis.record() == json.loads((tmp_path / "run" / "verdict.json").read_text())


@pytest.mark.parametrize("label", [None, {"field": "cls"}, {"field": "nothing.cls"}])
def test_knn_is_measured_where_there_are_labels(root, tmp_path, label):
    train(small_runs.parse_recipe(tables(root, tmp_path / "run", data__label=label, train__steps=2)))
    assert all(
        ("val/knn/image" in line) == (label == {"field": "cls"})
        for line in small_runs.checks(tmp_path / "run").values()
    )


def test_samples_without_a_label_count_in_the_loss_only(tmp_path):
    small_runs.write_shards(tmp_path / "train")
    small_runs.write_shards(tmp_path / "val", counts=(17, 12), unlabelled=20)
    lines = {}
    for name, label in (("with", {"field": "cls"}), ("without", None)):
        train(small_runs.parse_recipe(tables(tmp_path, tmp_path / name, data__label=label, train__steps=2)))
        lines[name] = small_runs.checks(tmp_path / name)[2]
    assert lines["with"]["val/loss"] == lines["without"]["val/loss"]
    accuracy = lines["with"]["val/knn/image"]  # a share of the at most nine that have a label
    assert any(abs(accuracy * n - round(accuracy * n)) < 1e-6 for n in range(1, 10))


def test_labels_inside_json_may_be_few_on_both_sides(tmp_path):
    """One sample in five has a label. If the others counted as bad samples, too many bad samples would end the run."""
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
        for shard in small_runs.write_shards(tmp_path / "plain").glob("*.tar"):
            with tarfile.open(shard) as old, tarfile.open(tmp_path / folder / shard.name, "w") as new:
                for member in old.getmembers():
                    data = old.extractfile(member).read()
                    if member.name.endswith("cls"):
                        few = int(member.name[:8]) % 5 == 0
                        data = json.dumps({"digit": int(data)} if few else {}).encode()
                        member.name, member.size = member.name.replace("cls", "json"), len(data)
                    new.addfile(member, io.BytesIO(data))
    label = {"field": "json", "path": "digit"}
    train(small_runs.parse_recipe(tables(tmp_path, tmp_path / "run", data__label=label, train__steps=2)))
    accuracy = small_runs.checks(tmp_path / "run")[2]["val/knn/image"]
    assert any(abs(accuracy * n - round(accuracy * n)) < 1e-6 for n in range(1, 9))


def test_a_python_dataset_can_be_held_out(tmp_path):
    generator = torch.Generator().manual_seed(0)
    data, val = (
        [{"image": torch.randint(256, (3, 8, 8), generator=generator).byte(), "label": n % 3} for n in range(size)]
        for size in (32, 21)
    )
    recipe = small_runs.recipe(tmp_path, tmp_path / "run", data={"batch_size": 8, "workers": 0}, train__check_every=3)
    train(recipe, data=data, val=val)
    assert {"val/loss", "val/knn/image"} < small_runs.checks(tmp_path / "run")[6].keys()


def test_unusable_held_out_shards_are_refused(root, tmp_path):
    small_runs.write_shards(tmp_path / "large", counts=(9,), size=12)
    with pytest.raises(DataError, match=r"column image is \(3, 12, 12\), in the training data it is \(3, 8, 8\)"):
        train(small_runs.parse_recipe(tables(root, tmp_path / "run", data__val=str(tmp_path / "large/*.tar"))))
    with pytest.raises(DataError, match=r"data\.val=\[\] to train without"):
        train(small_runs.parse_recipe(tables(root, tmp_path / "run", data__val="nowhere/*.tar")))


@pytest.mark.parametrize("world", [1, 2])
def test_samples_that_lack_a_sensor_are_left_out_of_its_features(tmp_path, processes, world):
    small_runs.write_shards(tmp_path / "train", without_depth=15)
    given = small_runs.tables(
        tmp_path, tmp_path / "run", data__missing="mask", train__steps=2,
        data__columns={"image": {"field": "png"}, "depth": {"field": "depth.png"}},
        views={"image": {"from": "image"}, "depth": {"from": "depth"}},
        encoder={name: {"name": "mlp", "options": {"widths": [16]}} for name in ("image", "depth")},
    )  # fmt: skip
    small_runs.train_on(processes, world, given)
    assert all(line["val/rank/depth"] > 1 for line in small_runs.checks(tmp_path / "run").values())
