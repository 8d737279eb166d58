"""The loop: runs that stop, resume, survive faults or are refused, with real shards and processes."""

import json
import signal
from pathlib import Path

import forked_commands
import pytest
import small_runs
import torch
from fault_views import witnessed

from mvssl import train
from mvssl.checkpoints import store
from mvssl.data import open_shards
from mvssl.errors import DataError, OutputError, RecipeError
from mvssl.views.parameters import ParameterDraw

WITNESS = {"from": "image", "name": "fault_views:Witness", "count": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    small_runs.write_shards(folder / "train")
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_workers_draw_the_parameters_of_steps_and_checks(root, tmp_path, monkeypatch, workers):
    drawn_here, own = [], ParameterDraw.__call__

    def draw(self, position, seed):
        drawn_here.append(seed)  # in a worker, its own list
        return own(self, position, seed)

    monkeypatch.setattr(ParameterDraw, "__call__", draw)
    recipe = small_runs.recipe(root, tmp_path / "run", data__workers=workers, train__steps=4, train__check_every=2)
    train(recipe)
    if workers:
        assert drawn_here == []
    else:
        assert drawn_here.count(recipe.train.seed) == 4
        assert len(set(drawn_here)) == 2  # checks draw with their own seed


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 0), (2, 1)])
def test_a_resumed_run_is_the_uninterrupted_run_bit_for_bit(root, tmp_path, processes, world, workers):
    # a constant rate, as the cosine of a shorter run is another one; drop-path, which draws from torch's generator
    dropping = {"name": "resnet18", "options": {"channels": [8, 8, 8, 8], "drop_path_rate": 0.5}}
    options = {"data__workers": workers, "optim__schedule": "constant", "encoder": dropping, "train__log_every": 1}
    straight, halves = (small_runs.tables(root, tmp_path / out, **options) for out in ("straight", "halves"))
    small_runs.train_on(processes, world, straight)
    for steps in (3, 6) if workers else (1, 4, 5, 6):  # an epoch is 5 steps
        halves["train"]["steps"] = steps
        small_runs.train_on(processes, world, halves)
    for name in ("model", "optimizer"):
        assert small_runs.same_bits(
            small_runs.weights(tmp_path / "straight", 6, name), small_runs.weights(tmp_path / "halves", 6, name)
        )
    lines = [
        [{**line, "samples_per_second": 0, "data_wait": 0} for line in small_runs.metrics(tmp_path / out)]
        for out in ("straight", "halves")
    ]
    assert lines[0] == lines[1]


def test_resuming_on_another_number_of_processes_keeps_samples_and_draws(root, tmp_path, processes):
    views = {"image": {**WITNESS, "file": str(tmp_path / "one")}}
    given = small_runs.tables(root, tmp_path / "straight", views=views, train__steps=9)
    small_runs.train_on(processes, 1, given)
    given["views"]["image"]["file"] = str(tmp_path / "many")
    # the run's recipe names the witness's file, so all three legs keep it
    given["train"]["out"] = str(tmp_path / "legs")
    for world, steps in ((1, 3), (2, 6), (1, 9)):
        given["train"]["steps"] = steps
        small_runs.train_on(processes, world, given)
    assert len(witnessed(tmp_path / "one_0")) == 9 * small_runs.BATCH
    assert witnessed(tmp_path / "one_0") == witnessed(tmp_path / "many_0")
    assert witnessed(tmp_path / "one_1") == witnessed(tmp_path / "many_1")


def test_a_batch_of_nan_on_one_process_changes_nothing_on_either(root, tmp_path, processes):
    batch = small_runs.BATCH
    second_half = list(range(3 * batch + batch // 2, 4 * batch))  # process 1's rows of step 4
    views = {"image": {"from": "image", "name": "fault_views:Poison", "count": 2, "positions": second_half}}
    given = small_runs.tables(root, tmp_path / "run", views=views, train__steps=4, train__keep=4)
    given["optim"]["schedule"] = "constant"
    small_runs.train_on(processes, 2, given)
    for name in ("model", "optimizer"):
        before, after = small_runs.weights(tmp_path / "run", 3, name), small_runs.weights(tmp_path / "run", 4, name)
        assert small_runs.same_bits(before, after)
    assert store.load_state(store.newest(tmp_path / "run")).skipped == 1
    given["train"]["steps"] = 5
    small_runs.train_on(processes, 2, given)
    assert not torch.equal(*(small_runs.weights(tmp_path / "run", step)[KERNEL] for step in (4, 5)))


KERNEL = "encoders.image.model.fc.weight"


def test_a_killed_run_continues_bit_for_bit(root, tmp_path):
    killer = {"from": "image", "name": "fault_views:Killer", "count": 2, "position": 4 * small_runs.BATCH}
    for out, number in (("killed", signal.SIGKILL), ("stopped", signal.SIGTERM), ("straight", signal.SIGUSR1)):
        views = {"image": {**killer, "signal": int(number), "marker": str(tmp_path / f"marker-{out}")}}
        if out == "straight":
            Path(views["image"]["marker"]).touch()
        given = small_runs.tables(root, tmp_path / out, views=views, train__steps=8)
        first = forked_commands.train(given, tmp_path)
        assert first.wait() == {0: {"killed": -9, "stopped": 143, "straight": 0}[out]}, first.stderr()
        if out == "stopped":
            assert "the same command" in first.stderr()
            assert json.loads((tmp_path / out / "exit.json").read_text())["code"] == 143
            assert store.newest(tmp_path / out).name == "step-00000006"  # the step under way and one more
        if out != "straight":
            assert forked_commands.train(given, tmp_path).wait() == {0: 0}
    for out in ("killed", "stopped"):
        assert small_runs.same_bits(small_runs.weights(tmp_path / out, 8), small_runs.weights(tmp_path / "straight", 8))
        assert [line["step"] for line in small_runs.metrics(tmp_path / out)] == sorted(
            {line["step"] for line in small_runs.metrics(tmp_path / out)}
        )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_run_stopped_before_its_first_step_reports_it(root, tmp_path, number, code):
    views = {"image": {"from": "image", "name": "fault_views:Leaver", "count": 2, "signal": int(number)}}
    left = forked_commands.train(small_runs.tables(root, tmp_path / "run", views=views), tmp_path)
    assert left.wait() == {0: code}
    assert "before the first step" in left.stderr()
    assert "Traceback" not in left.stderr()
    assert json.loads((tmp_path / "run" / "exit.json").read_text())["code"] == code


@pytest.mark.parametrize(
    ("table", "key", "value", "message"),
    [
        ("objective", "temperature", 0.5, "objective"),
        ("data", "batch_size", 4, "data.batch_size: 8 -> 4"),
        ("train", "seed", 1, "train.seed: 0 -> 1"),
        ("train", "precision", "tf32", "train.precision: fp32 -> tf32"),
        ("encoder", "taps", [0, 1], "encoder"),
    ],
)
def test_a_change_of_samples_model_or_loss_is_refused_and_shown(root, tmp_path, table, key, value, message):
    given = small_runs.tables(root, tmp_path / "run", train__steps=2)
    train(small_runs.parse_recipe(given))
    before = small_runs.weights(tmp_path / "run", 2)
    given[table][key] = value
    with pytest.raises(RecipeError, match="alter its samples, model or loss") as caught:
        train(small_runs.parse_recipe(given))
    assert message in str(caught.value)
    assert small_runs.same_bits(before, small_runs.weights(tmp_path / "run", 2))


def test_other_data_under_the_same_name_are_refused(tmp_path):
    small_runs.write_shards(tmp_path / "train")
    train(small_runs.recipe(tmp_path, tmp_path / "run", train__steps=2))
    small_runs.write_shards(tmp_path / "train", counts=(20, 13, 9))
    with pytest.raises(RecipeError, match="trained on other data"):
        train(small_runs.recipe(tmp_path, tmp_path / "run", train__steps=4))


def test_a_changed_rate_or_length_is_accepted_and_reported(root, tmp_path, capsys):
    train(small_runs.recipe(root, tmp_path / "run", train__steps=2))
    train(small_runs.recipe(root, tmp_path / "run", train__steps=4, optim__lr=1e-4))
    assert "optim.lr: 0.001 -> 0.0001" in capsys.readouterr().err
    assert small_runs.metrics(tmp_path / "run")[-1]["step"] == 4


def test_bad_samples_are_replaced_counted_and_recorded(tmp_path):
    small_runs.write_shards(tmp_path / "train")
    damage(tmp_path / "train" / "000001.tar", b"\x89PNG", 2)
    given = small_runs.tables(tmp_path, tmp_path / "run", train__steps=5)  # 40 samples: each once
    train(small_runs.parse_recipe(given))
    lines = [json.loads(line) for line in (tmp_path / "run" / "bad.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    assert {line["column"] for line in lines} == {"image"}
    assert store.load_state(store.newest(tmp_path / "run")).bad == 2


def test_too_many_bad_samples_end_the_run_with_their_names(tmp_path):
    small_runs.write_shards(tmp_path / "train")
    damage(tmp_path / "train" / "000001.tar", b"\x89PNG", 4)
    given = small_runs.tables(tmp_path, tmp_path / "run", train__steps=10, data__max_bad=0.0001)
    with pytest.raises(DataError, match=r"000001\.tar key \d+ image"):
        train(small_runs.parse_recipe(given))
    assert store.newest(tmp_path / "run") is not None


def damage(shard: Path, magic: bytes, count: int) -> None:
    """Overwrite the first bytes of the colour images of `count` samples in place."""
    import tarfile

    with tarfile.open(shard) as tar:
        starts = [member.offset_data for member in tar if member.name.endswith(".png") and "depth" not in member.name]
    with open(shard, "r+b") as file:
        for start in starts[:count]:
            file.seek(start)
            assert file.read(4) == magic
            file.seek(start)
            file.write(b"garbage!" * 8)


SENSORS = {
    "data__columns": {"image": {"field": "png"}, "depth": {"field": "depth.png"}},
    "views": {"image": {"from": "image"}, "depth": {"from": "depth"}},
    "encoder": {name: {"name": "mlp", "options": {"widths": [16]}} for name in ("image", "depth")},
}


@pytest.mark.parametrize("world", [1, 2])
def test_samples_that_lack_a_sensor_are_left_out_or_masked(tmp_path, processes, world):
    small_runs.write_shards(tmp_path / "train", without_depth=15)
    for missing, count in (("drop", 25), ("mask", 40)):
        given = small_runs.tables(tmp_path, tmp_path / missing, data__missing=missing, **SENSORS)
        small_runs.train_on(processes, world, given)
        assert all(line["loss"] == line["loss"] for line in small_runs.metrics(tmp_path / missing))
        columns = small_runs.parse_recipe(given).data.columns
        assert len(open_shards("train", tmp_path, columns, missing=missing)) == count


def test_a_python_dataset_of_dicts_trains_like_shards(tmp_path):
    data = [{"image": torch.full((3, 8, 8), n, dtype=torch.uint8)} for n in range(32)]
    outcome = train(small_runs.recipe(tmp_path, tmp_path / "run", data={"batch_size": 8, "workers": 0}), data=data)
    assert outcome.step == 6
    assert outcome.metrics["loss"] > 0


def test_a_run_folder_that_cannot_be_made_is_refused_before_data_are_read(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"choose another with train\.out"):
        train(small_runs.recipe(tmp_path / "nowhere", tmp_path / "file" / "run"))


def test_a_batch_size_that_processes_do_not_divide_is_refused(root, tmp_path, processes):
    answers = processes(small_runs.train_as_rank, small_runs.tables(root, tmp_path / "run", data__batch_size=7))
    assert all(text.startswith("64: ") and "7" in text for _, text in answers)


def test_fewer_samples_than_a_batch_are_refused(root, tmp_path):
    with pytest.raises(DataError, match="40"):
        train(small_runs.recipe(root, tmp_path / "run", data__batch_size=64))


def test_bf16_trains_and_keeps_weights_in_float32(root, tmp_path):
    losses = []
    for precision in ("fp32", "bf16"):
        train(small_runs.recipe(root, tmp_path / precision, train__precision=precision))
        losses.append(small_runs.metrics(tmp_path / precision)[0]["loss"])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)
    assert all(t.dtype in (torch.float32, torch.int64) for t in small_runs.weights(tmp_path / "bf16", 6).values())


def test_an_interval_of_vetoed_steps_has_no_loss(root, tmp_path):
    views = {"image": {"from": "image", "name": "fault_views:Poison", "count": 2, "positions": list(range(16))}}
    train(small_runs.recipe(root, tmp_path / "run", views=views, train__steps=4, train__log_every=2))
    assert [line["loss"] is None for line in small_runs.metrics(tmp_path / "run")] == [True, False]
