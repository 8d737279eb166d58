"""Encoders: one pass, one shape of output, for every kind of timm model; errors that give the way out."""

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from mvssl import recipe
from mvssl.checkpoint import save_checkpoint
from mvssl.encoders import Encoder, Widths
from mvssl.errors import DataError, RecipeError
from mvssl.model import MultiView

MODELS = {
    "resnet18": (3, 64, 48),
    "resnet18_small": (2, 16, 16),
    "convnext_atto": (13, 64, 64),
    "vit_tiny_patch16_224": (1, 32, 48),
    "swin_tiny_patch4_window7_224": (3, 56, 56),
    "dim_conv32": (3, 32, 32),
    "amdim_32": (4, 32, 32),
    "mlp": (1, 8, 8),
    "conv1d": (9, 50),
}
SMALL = {"amdim_32": {"ndf": 8, "n_rkhs": 40, "depth": 2}, "mlp": {"widths": [12, 10], "output": 7}}


def encoder(name, shape, **table):
    options = {**SMALL.get(name, {}), **table.pop("options", {})}
    return Encoder(recipe.Encoder(name=name, options=options, **table), shape)


@pytest.mark.parametrize("name", MODELS)
def test_widths_are_the_shapes_of_the_features_and_the_vector_is_what_timm_returns(name):
    made = encoder(name, MODELS[name]).eval()
    x = torch.randn(2, *MODELS[name])
    with torch.no_grad():
        features = made(x)
        assert_close(features.vector, made.model(x), rtol=0, atol=0)
    assert made.widths == Widths(tuple(tuple(m.shape[1:]) for m in features.maps), features.vector.shape[1])
    assert all(m.ndim == 4 and len(m) == 2 for m in features.maps)
    heights = [m.shape[2] for m in features.maps]
    assert heights == sorted(heights, reverse=True)


def test_building_twice_from_one_seed_gives_one_model_and_measuring_draws_nothing():
    torch.manual_seed(3)
    first = encoder("resnet18_small", (3, 16, 16), options={"channels": [8, 8, 8, 8]})
    after = torch.rand(1)
    torch.manual_seed(3)
    second = timm.create_model("resnet18_small", num_classes=0, channels=[8, 8, 8, 8])
    assert_close(first.model.state_dict(), second.state_dict(), rtol=0, atol=0)
    assert after == torch.rand(1)
    assert first.training
    assert first.model.bn1.num_batches_tracked == 0


def test_taps_pick_maps_and_none_of_them_leaves_the_vector():
    assert encoder("resnet18", (3, 64, 64), taps=[1, -1]).widths == Widths(((64, 16, 16), (512, 2, 2)), 512)
    assert encoder("resnet18", (3, 64, 64), taps=[]).widths == Widths((), 512)
    assert encoder("dim_conv32", (3, 32, 32), taps=[1, -1]).widths.maps == ((128, 8, 8), (1024, 1, 1))


def test_a_vector_and_a_signal_are_taken_by_the_mlp():
    assert encoder("mlp", (17,)).widths == Widths((), 7)
    assert encoder("mlp", (2, 9))(torch.randn(3, 2, 9)).vector.shape == (3, 7)


@pytest.mark.parametrize(
    ("name", "shape", "table", "said"),
    [
        ("resnet81", (3, 32, 32), {}, "timm has no model 'resnet81'; did you mean 'resnet"),
        ("local-dir:x", (3, 32, 32), {}, "timm has no model 'local-dir:x'"),
        ("resnet18", (5,), {}, "resnet18 does not take views of shape"),
        ("resnet18", (3, 32, 32), {"taps": [9]}, r"taps \[9\]"),
        ("resnet18", (3, 32, 32), {"options": {"depht": 3}}, "depht"),
        ("resnet18", (3, 32, 32), {"options": {"num_classes": 3}}, "num_classes is not for recipes"),
        ("resnet18", (3, 32, 32), {"options": {"features_only": True}}, "features_only is not for recipes.*taps"),
        ("resnet18", (3, 32, 32), {"options": {"pretrained_cfg": "x"}}, "pretrained_cfg is not for recipes.*init_from"),
        ("resnet18", (3, 32, 32), {"options": {"scriptable": True}}, "scriptable is not for recipes"),
        (
            "resnet18",
            (3, 32, 32),
            {"options": {"global_pool": ""}},
            r"encoder.resnet18.*global_pool=.*in place of a vec",
        ),
        ("resnet18", (3, 32, 32), {"options": {"global_pool": ""}, "taps": []}, "global_pool=.*in place of a vector"),
        ("resnet18", (3, 32, 32), {"options": {"global_pool": 3}}, "encoder.resnet18.*global_pool=3"),
        ("resnet18", (3, 32, 32), {"options": {"act_layer": "zz"}}, "act_layer=zz.*unknown value 'zz'"),
        ("resnet18_small", (3, 32, 32), {"options": {"channels": [8, 8, 8, 0]}}, r"channels=\[8, 8, 8, 0\]"),
        ("vit_tiny_patch16_224", (3, 32, 32), {"options": {"img_size": 64}}, "img_size=64.*64"),
        ("resnet18", (3, 32, 32), {"options": {"in_chans": 4}}, "its views have 3 channels"),
        ("mlp", (6,), {"options": {"widths": [], "output": None}}, "encoder.mlp: .*at least one layer"),
        ("mlp", (6,), {"options": {"widths": [8, 0]}}, "at least one unit"),
        ("conv1d", (9, 50), {"options": {"kernels": []}}, "give numbers above 0"),
        ("amdim_32", (3, 33, 33), {}, "32, 64 or 128"),
        ("amdim_32", (3, 32, 32), {"options": {"n_rkhs": 4}}, "n_rkhs is at least"),
        ("dim_conv32", (3, 20, 20), {}, "divisible by 8"),
    ],
)
def test_what_does_not_fit_is_named_with_the_way_out(name, shape, table, said):
    with pytest.raises(RecipeError, match=said):
        encoder(name, shape, **table)


def test_a_model_without_one_pass_features_is_refused_by_name():
    @timm.models.register_model
    def no_features_test_model(pretrained=False, **kwargs):
        return torch.nn.Linear(3, 3)

    with pytest.raises(RecipeError, match="no_features_test_model has no forward_intermediates"):
        encoder("no_features_test_model", (3, 8, 8))


def test_start_weights_come_from_a_file_a_folder_or_a_run(tmp_path):
    made = encoder("dim_conv32", (3, 32, 32))
    own = made.model.state_dict()
    save_file({**own, "head.weight": torch.zeros(2, 64)}, tmp_path / "one.safetensors")  # a classifier is left out
    folder = tmp_path / "export"
    folder.mkdir()
    save_file(own, folder / "model.safetensors")
    whole = {f"encoders.{group}.model.{key}": t + (group == "b") for group in "ab" for key, t in own.items()}
    save_file({**whole, "objective.0.x": torch.ones(1)}, tmp_path / "run.safetensors")
    run = tmp_path / "run"
    model = MultiView({"left,right": made}, [])
    save_checkpoint(run, 3, model, torch.optim.AdamW(model.parameters()), {}, keep=2)
    for source in (tmp_path / "one.safetensors", folder, run):
        assert_close(encoder("dim_conv32", (3, 32, 32), init_from=str(source)).model.state_dict(), own)
    table = recipe.Encoder(name="dim_conv32", init_from=str(tmp_path / "run.safetensors"))
    assert_close(Encoder(table, (3, 32, 32), "b").model.state_dict(), {key: t + 1 for key, t in own.items()})
    with pytest.raises(RecipeError, match="encoders 'a', 'b' and none for 'c'"):
        Encoder(table, (3, 32, 32), "c")
    with pytest.raises(RecipeError, match=r"fc.weight is \[1024, 4096\], the model has \[1024, 16384\]"):
        encoder("dim_conv32", (3, 64, 64), init_from=str(folder))
    with pytest.raises(RecipeError, match=r"(?s)missing conv1.weight.*and \d+ more"):
        encoder("resnet18_small", (3, 32, 32), init_from=str(folder))
    with pytest.raises(RecipeError, match="it holds export: name one of these"):
        encoder("dim_conv32", (3, 32, 32), init_from=str(tmp_path))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "one.safetensors").read_bytes()[:1000])
    with pytest.raises(DataError, match="cut"):
        encoder("dim_conv32", (3, 32, 32), init_from=str(tmp_path / "cut.safetensors"))
