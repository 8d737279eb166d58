"""On a GPU: losses are as exact as plain ones, views equal those of a CPU, no step waits, a save holds its own step."""

import pytest
import small_runs
import torch
from torch.testing import assert_close

from mvssl import train
from mvssl.bench.devices.equality import compare_losses
from mvssl.bench.devices.host_waits import trace_steps
from mvssl.bench.losses import build_cmc_case
from mvssl.bench.memory import measure_peak
from mvssl.checkpoints import store
from mvssl.data import Batch
from mvssl.recipe import ViewConfig
from mvssl.training.accelerator import arithmetic_of, make_accelerator
from mvssl.training.preparation import prepare_trainer
from mvssl.training.step import Trainer
from mvssl.views import build_views

PRESETS = ("simclr", "amdim_imagenet", "cmc", "crop_flip")


@pytest.fixture
def data(tmp_path):
    return small_runs.write_shards(tmp_path / "data" / "train").parent


def test_losses_are_as_exact_as_plain_ones_in_every_precision(device):
    found = compare_losses(device, n=4096)
    assert all(equality.holds for equality in found), [equality for equality in found if not equality.holds]


def test_the_contrastive_loss_of_65536_samples_needs_no_gigabyte(device):
    ours = build_cmc_case(65_536, device).build_ways()["ours"]
    assert measure_peak(ours, device) < 1e9  # one matrix of scores alone has 17


@pytest.mark.parametrize("preset", PRESETS)
def test_views_on_a_gpu_equal_those_on_a_cpu(device, preset):
    view = ViewConfig.model_validate({"from": "image", "augment": preset, "size": 96, "normalize": "none"})
    views = build_views({"a": view}, {"image": (3, 120, 160)})
    image = torch.randint(256, (16, 3, 120, 160), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    batch = Batch({"image": image}, torch.arange(16), torch.arange(16), {}, [])
    scale = 100.0 if preset == "cmc" else 1.0  # L of Lab is 0 to 100
    on_cpu, on_gpu = views(batch, 0)["a"], views(batch, 0, device)["a"].cpu()
    assert_close(on_gpu, on_cpu, rtol=0, atol=4 / 255 * scale)  # a CPU rounds crops to bytes before the colours
    assert (on_gpu - on_cpu).abs().mean() < 0.5 / 255 * scale


def test_a_step_names_no_place_that_waits_for_the_device(device, data, tmp_path):
    recipe = small_runs.recipe(data, tmp_path / "run", train__steps=40)
    with arithmetic_of(recipe):
        trainer = prepare_trainer(recipe, make_accelerator(recipe))
        batches = iter(trainer.batches(0, 40))

        def take_steps():
            for number in range(trainer.done, trainer.done + 3):
                trainer.step(next(batches), number)

        take_steps()
        assert trace_steps(take_steps, device).places == {}


def test_a_checkpoint_holds_the_weights_of_its_step(device, data, tmp_path, monkeypatch):
    weights, step = {}, Trainer.step

    def keeping(self, batch, number, **given):
        result = step(self, batch, number, **given)
        weights[self.done] = {name: x.detach().cpu().clone() for name, x in self.model.state_dict().items()}
        return result

    monkeypatch.setattr(Trainer, "step", keeping)
    run = tmp_path / "run"
    train(small_runs.recipe(data, run, train__steps=6, train__save_every=2, train__keep=9))
    for saved in (2, 4, 6):
        assert_close(store.load_model(run / f"checkpoints/step-{saved:08d}"), weights[saved], rtol=0, atol=0)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_every_precision_trains(device, data, tmp_path, precision):
    outcome = train(small_runs.recipe(data, tmp_path / precision, train__steps=3, train__precision=precision))
    assert outcome.step == 3
    assert outcome.metrics["loss"] is not None
