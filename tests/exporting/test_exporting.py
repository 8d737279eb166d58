"""An export is a folder that plain timm loads, with the same outputs; it is checked before it counts."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import small_runs
import timm
import torch
from full_disk import files_of_at_most
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from mvssl import recipe, train
from mvssl.encoders import Encoder
from mvssl.errors import DataError, OutputError, StorageError
from mvssl.exporting.exporting import export, export_encoder, per_channel
from mvssl.exporting.model_card import Card
from mvssl.recipe import parse_recipe
from mvssl.recipe.yaml_text import parse_yaml
from mvssl.views import View

CHANNELS = (1, 3, 13)
LOAD = """
import json, sys
if {ours}:
    import mvssl
import timm
from safetensors.torch import load_file
assert {ours} or not any(name.startswith("mvssl") for name in sys.modules)
for folder in sys.argv[1:]:
    model = timm.create_model("local-dir:" + folder, pretrained=True, num_classes=0).eval()
    check = load_file(folder + "/../check-" + folder.rsplit("/", 1)[1])
    print(json.dumps((model(check["x"]) - check["y"]).abs().max().item()))
    data = timm.data.resolve_data_config({{}}, model=model)
    assert tuple(data["input_size"]) == tuple(check["x"].shape[1:]), data
    assert len(data["mean"]) == len(data["std"]) == check["x"].shape[1], data
assert {ours} or not any(name.startswith("mvssl") for name in sys.modules)
"""


def trained(name, shape, **options):
    """An encoder whose every weight and statistic has moved."""
    made = Encoder(recipe.EncoderConfig(name=name, options=options), shape).eval()
    with torch.no_grad():
        for tensor in [*made.parameters(), *(b for b in made.buffers() if b.is_floating_point())]:
            tensor.add_(0.02 * torch.rand_like(tensor))
    return made


def written(folder, number, encoder):
    """Export, and beside it what the encoder says about a batch."""
    destination = folder / str(number)
    assert export_encoder(encoder, destination, Card(mean=(0.3,), std=(0.2,))).max_difference <= 1e-5
    x = torch.randn(2, *encoder.shape)
    with torch.no_grad():
        save_file({"x": x, "y": encoder(x).vector.contiguous()}, folder / f"check-{number}")
    return str(destination)


def differences(folders, *, ours):
    code = [sys.executable, "-W", "error", "-c", LOAD.format(ours=ours), *folders]
    done = subprocess.run(code, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_stock_models_load_in_plain_timm_with_equal_outputs(tmp_path):
    sizes = {"resnet18": (48, 32), "vit_tiny_patch16_224": (32, 48), "convnext_atto": (32, 32)}
    made = [trained(name, (c, *size)) for name, size in sizes.items() for c in CHANNELS]
    folders = [written(tmp_path, number, encoder) for number, encoder in enumerate(made)]
    found = differences(folders, ours=False)
    assert len(found) == 9
    assert max(found) <= 1e-6


def test_our_networks_load_where_mvssl_is_imported(tmp_path):
    small = {
        "dim_conv32": ((16, 24), {"channels": [8, 16, 16], "hidden": 20}),
        "dim_conv64": ((64, 64), {"channels": [4, 8, 8, 16], "hidden": 20}),
        "amdim_32": ((32, 32), {"ndf": 4, "n_rkhs": 24, "depth": 2}),
        "amdim_64": ((64, 64), {"ndf": 2, "n_rkhs": 24, "depth": 1}),
        "amdim_128": ((128, 128), {"ndf": 2, "n_rkhs": 24, "depth": 1, "use_bn": True}),
        "resnet10_small": ((16, 16), {"channels": [8, 8, 8, 8]}),
    }
    made = [trained(name, (c, *size), **options) for name, (size, options) in small.items() for c in CHANNELS]
    folders = [written(tmp_path, number, encoder) for number, encoder in enumerate(made)]
    found = differences(folders, ours=True)
    assert len(found) == 18
    assert max(found) <= 1e-6


def test_an_encoder_of_signals_is_exported_as_an_image_one_pixel_high(tmp_path):
    encoder = trained("conv1d", (9, 40), channels=[8, 12], kernels=5)
    assert export_encoder(encoder, tmp_path / "x", Card(mean=tuple(range(9)), std=(1.0,))).max_difference <= 1e-6
    model = timm.create_model(f"local-dir:{tmp_path / 'x'}", pretrained=True, num_classes=0).eval()
    x = torch.randn(2, 9, 40)
    assert_close(model(x[:, :, None]), encoder(x).vector)
    data = timm.data.resolve_data_config({}, model=model)
    assert (data["input_size"], data["mean"]) == ((9, 1, 40), [float(c) for c in range(9)])


def test_a_vector_encoder_is_exported_too(tmp_path):
    encoder = trained("mlp", (17,), widths=[9], output=5)
    assert export_encoder(encoder, tmp_path / "x", Card()).max_difference == 0
    model = timm.create_model(f"local-dir:{tmp_path / 'x'}", pretrained=True, num_classes=0).eval()
    assert model(torch.randn(3, 17)).shape == (3, 5)


def test_an_export_is_a_start_for_the_next_run(tmp_path):
    encoder = trained("resnet10_small", (3, 16, 16), channels=[8, 8, 8, 8])
    export_encoder(encoder, tmp_path / "x", Card())
    table = recipe.EncoderConfig(
        name="resnet10_small", options={"channels": [8, 8, 8, 8]}, init_from=str(tmp_path / "x")
    )
    assert_close(Encoder(table, (3, 16, 16)).model.state_dict(), encoder.model.state_dict())


def test_a_head_for_new_classes_uses_the_exported_weights(tmp_path):
    encoder = trained("resnet18", (3, 32, 32))
    export_encoder(encoder, tmp_path / "x", Card())
    model = timm.create_model(f"local-dir:{tmp_path / 'x'}", pretrained=True, num_classes=7).eval()
    x = torch.randn(2, 3, 32, 32)
    assert model(x).shape == (2, 7)
    assert_close(model.forward_head(model.forward_features(x), pre_logits=True), encoder(x).vector)


def test_only_three_channels_leave_the_first_layer_to_timm(tmp_path):
    # timm 1.0.20 takes every source for 3 channels and would silently redraw the first layer of these 13
    for channels, layer in ((3, "conv1"), (13, None)):
        export_encoder(
            trained("resnet10_small", (channels, 16, 16), channels=[8] * 4), tmp_path / str(channels), Card()
        )
        config = json.loads((tmp_path / str(channels) / "config.json").read_text())
        assert config["pretrained_cfg"]["first_conv"] == layer


def test_a_model_that_reloads_differently_is_not_exported(tmp_path, monkeypatch):
    encoder = trained("resnet10_small", (3, 16, 16), channels=[8, 8, 8, 8])
    monkeypatch.setitem(encoder.arguments, "act_layer", "gelu")
    with pytest.raises(OutputError, match="differs from the trained encoder"):
        export_encoder(encoder, tmp_path / "x", Card())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_neither_an_export_nor_its_folder(tmp_path):
    encoder = trained("mlp", (30,), widths=[40])
    for size in (0, 100, 3000):  # of config.json nothing, of config.json a part, of the weights a part
        with files_of_at_most(size), pytest.raises(StorageError, match=r"new/x cannot be written.*too large"):
            export_encoder(encoder, tmp_path / "new" / "x", Card())
        assert list(tmp_path.iterdir()) == []
    export_encoder(encoder, tmp_path / "x", Card())
    before = {file.name: file.read_bytes() for file in (tmp_path / "x").iterdir()}
    with files_of_at_most(3000), pytest.raises(StorageError):
        export_encoder(trained("mlp", (30,), widths=[40]), tmp_path / "x", Card())
    assert {file.name: file.read_bytes() for file in (tmp_path / "x").iterdir()} == before
    assert [place.name for place in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_export_is_complete_or_absent(tmp_path, monkeypatch, signal):
    old, new = trained("mlp", (30,), widths=[40]), trained("mlp", (30,), widths=[40])

    def interrupted(*_):
        raise signal

    monkeypatch.setattr("mvssl.exporting.exporting.write_card", interrupted)
    with pytest.raises(signal):
        export_encoder(new, tmp_path / "x", Card())
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []
    export_encoder(old, tmp_path / "x", Card())
    own, calls = os.replace, []

    def second(*given):
        calls.append(given)
        if len(calls) == 2:
            raise signal
        own(*given)

    monkeypatch.setattr("mvssl.exporting.exporting.os.replace", second)
    with pytest.raises(signal):
        export_encoder(new, tmp_path / "x", Card(source="new"))
    assert_close(load_file(tmp_path / "x" / "model.safetensors"), new.model.state_dict())
    assert json.loads((tmp_path / "x" / "config.json").read_text())["mvssl"]["source"] == "new"
    assert [place.name for place in tmp_path.iterdir()] == ["x"]


def test_either_all_encoders_are_exported_or_none(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    monkeypatch.setattr(Card, "of_run", lambda run, group: Card() if group == "a" else Card(mean=(1.0, 2.0)))
    run = SimpleNamespace(
        model=SimpleNamespace(encoders={name: trained("mlp", (3,), widths=[4]) for name in ("a", "b")})
    )
    with pytest.raises(OutputError, match="mean has 2 numbers"):
        export(run, folder)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(Card, "of_run", lambda run, group: Card())
    assert [report.folder for report in export(run, folder)] == [folder / "a", folder / "b"]
    assert sorted(file.name for file in (folder / "b").iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/x cannot be written: .*file is no folder"):
        export_encoder(trained("mlp", (3,), widths=[4]), tmp_path / "file" / "x", Card())


def test_only_an_earlier_export_is_replaced(tmp_path):
    encoder = trained("mlp", (3,), widths=[4])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"architecture": "resnet18"}')
    (tmp_path / "file").write_text("text")
    for place in ("mine", "file"):
        with pytest.raises(OutputError, match=f"{place} is"):
            export_encoder(encoder, tmp_path / place, Card())
    assert (tmp_path / "mine" / "config.json").read_text() == '{"architecture": "resnet18"}'
    export_encoder(encoder, tmp_path / "ours", Card())
    (tmp_path / "ours" / "notes.txt").write_text("kept")
    with torch.no_grad():
        encoder.model.layers[0].weight.add_(1)
    export_encoder(encoder, tmp_path / "ours", Card())
    assert (tmp_path / "ours" / "notes.txt").read_text() == "kept"
    assert_close(load_file(tmp_path / "ours" / "model.safetensors"), encoder.model.state_dict())


def test_statistics_are_one_number_for_each_channel():
    assert per_channel((0.5,), 3, "mean") == [0.5, 0.5, 0.5]
    assert per_channel((1, 2), 2, "mean") == [1, 2]
    with pytest.raises(OutputError, match="mean has 3 numbers for 13 channels"):
        per_channel((0.1, 0.2, 0.3), 13, "mean")


def a_run(folder, groups):
    """What `load_run` gives, as far as export looks at it."""
    tables = {
        "data": {"train": "tiny/*.tar"},
        "views": {"left": {"from": "x", "count": 2}, "right": {"from": "y"}},
        "encoder": {group: {"name": "mlp", "options": {"widths": [4]}} for group in groups},
        "objective": {"name": "cmc"},
        "train": {"steps": 5, "out": str(folder)},
    }
    mean, std = torch.tensor([0.25, 0.5]), torch.tensor([2.0, 4.0])
    view = View()
    view.shape, view.mean, view.std, view.interpolation = (2, 4, 4), mean, std, "nearest"
    encoders = {group: trained("mlp", (2, 4, 4), widths=[4]) for group in groups}
    return SimpleNamespace(
        folder=folder,
        recipe=parse_recipe(tables),
        step=1234,
        which="best",
        model=SimpleNamespace(encoders=encoders),
        views=SimpleNamespace(view=lambda name: view),
    )


def test_one_encoder_goes_to_the_folder_itself_with_a_model_card(tmp_path):
    record = {"probe": "knn", "view": "left", "encoder": "trained", "metric": "accuracy", "unit": "%", "value": 0.8125}
    record |= {"layer": "vector", "n_train": 1, "n_test": 1, "higher_is_better": True}
    record |= {"standard_error": 0.004, "protocol": {}, "subject": {"step": 1234}}
    record |= {"shards": {"train": ["tiny/*.tar"], "test": []}}
    (tmp_path / "evaluation.json").write_text(json.dumps([record]))
    [report] = export(a_run(tmp_path, ["left,right"]), tmp_path / "out")
    assert report.folder == tmp_path / "out"
    assert "step 1,234, the best checkpoint by held-out loss on data.val, reloaded" in str(report)
    assert "largest difference" in str(report)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["mvssl"]["step"], config["mvssl"]["checkpoint"]) == (1234, "best")
    assert config["pretrained_cfg"]["mean"] == [0.25, 0.5]
    assert config["pretrained_cfg"]["interpolation"] == "nearest"  # as its view resizes
    modes = {(tmp_path / "out" / name).stat().st_mode for name in ("config.json", "model.safetensors", "README.md")}
    assert len(modes) == 1  # who may read one may read all
    assert config["pretrained_cfg"]["std"] == [2.0, 4.0]
    assert config["pretrained_cfg"]["input_size"] == [2, 4, 4]
    card = (tmp_path / "out" / "README.md").read_text()
    for said in (
        "tiny/*.tar",
        "import mvssl, timm",
        "1,234 steps",
        "| left | column x",
        "cmc",
        "the best checkpoint by",
        "81.2 ± 0.4 %",
    ):
        assert said in card
    assert str(tmp_path) not in card
    assert parse_recipe(parse_yaml(card.split("```yaml\n")[1].split("```")[0], "card")).train.steps == 5


def test_several_encoders_go_to_subfolders(tmp_path):
    reports = export(a_run(tmp_path, ["left", "right"]), tmp_path / "out")
    assert [r.folder for r in reports] == [tmp_path / "out" / "left", tmp_path / "out" / "right"]
    assert all((r.folder / "model.safetensors").is_file() for r in reports)


def test_an_encoder_that_has_diverged_is_not_exported(tmp_path):
    encoder = trained("mlp", (3,), widths=[4])
    with torch.no_grad():
        encoder.model.layers[0].weight[0, 0] = float("nan")
    with pytest.raises(DataError, match=r"NaN or infinite features.*--checkpoint STEP"):
        export_encoder(encoder, tmp_path / "x", Card())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_exits_with_74_and_leaves_no_files(tmp_path):
    small_runs.write_shards(tmp_path / "train")
    train(small_runs.recipe(tmp_path, tmp_path / "run", train__steps=1))
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({2**12}, {2**12}))"
    code = f"{limited}; from mvssl.cli.main import main; main(['export', 'run', 'new/bb'])"
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 74, ended.stderr
    assert "mvssl: new/bb cannot be written" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "new").exists()
