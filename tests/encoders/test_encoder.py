"""Encoders: maps and a vector in one pass, for every kind of timm model; what is refused."""

import pytest
import timm
import torch
from torch.testing import assert_close

from mvssl import recipe
from mvssl.encoders import Encoder, Widths
from mvssl.errors import RecipeError

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
    return Encoder(recipe.EncoderConfig(name=name, options=options, **table), shape)


@pytest.mark.parametrize("name", MODELS)
def test_widths_match_the_features_and_the_vector_matches_timm(name):
    made = encoder(name, MODELS[name]).eval()
    x = torch.randn(2, *MODELS[name])
    with torch.no_grad():
        features = made(x)
        assert_close(features.vector, made.model(x), rtol=0, atol=0)
    assert made.widths == Widths(tuple(tuple(m.shape[1:]) for m in features.maps), features.vector.shape[1])
    assert all(m.ndim == 4 and len(m) == 2 for m in features.maps)
    heights = [m.shape[2] for m in features.maps]
    assert heights == sorted(heights, reverse=True)


def test_one_seed_gives_one_model_and_measuring_draws_nothing():
    torch.manual_seed(3)
    first = encoder("resnet18_small", (3, 16, 16), options={"channels": [8, 8, 8, 8]})
    after = torch.rand(1)
    torch.manual_seed(3)
    second = timm.create_model("resnet18_small", num_classes=0, channels=[8, 8, 8, 8])
    assert_close(first.model.state_dict(), second.state_dict(), rtol=0, atol=0)
    assert after == torch.rand(1)
    assert first.training
    assert first.model.bn1.num_batches_tracked == 0


def test_taps_choose_maps_and_an_empty_list_leaves_the_vector():
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
        ("resnet18", (3, 32, 32), {"options": {"num_classes": 3}}, "num_classes"),
        ("resnet18", (3, 32, 32), {"options": {"features_only": True}}, "features_only.*taps"),
        ("resnet18", (3, 32, 32), {"options": {"pretrained_cfg": "x"}}, "pretrained_cfg.*init_from"),
        ("resnet18", (3, 32, 32), {"options": {"scriptable": True}}, "scriptable"),
        (
            "resnet18",
            (3, 32, 32),
            {"options": {"global_pool": ""}},
            r"encoder.resnet18.*global_pool",
        ),
        ("resnet18", (3, 32, 32), {"options": {"global_pool": ""}, "taps": []}, "global_pool"),
        ("resnet18", (3, 32, 32), {"options": {"global_pool": 3}}, "encoder.resnet18.*global_pool=3"),
        ("resnet18", (3, 32, 32), {"options": {"act_layer": "zz"}}, "act_layer=zz.*unknown value 'zz'"),
        ("resnet18_small", (3, 32, 32), {"options": {"channels": [8, 8, 8, 0]}}, r"channels=\[8, 8, 8, 0\]"),
        ("vit_tiny_patch16_224", (3, 32, 32), {"options": {"img_size": 64}}, "img_size=64.*64"),
        ("resnet18", (3, 32, 32), {"options": {"in_chans": 4}}, "its views have 3 channels"),
        ("mlp", (6,), {"options": {"widths": [], "output": None}}, "encoder.mlp: .*widths"),
        ("mlp", (6,), {"options": {"widths": [8, 0]}}, "widths"),
        ("conv1d", (9, 50), {"options": {"kernels": []}}, "kernels"),
        ("amdim_32", (3, 33, 33), {}, "32, 64 or 128"),
        ("amdim_32", (3, 32, 32), {"options": {"n_rkhs": 4}}, "n_rkhs"),
        ("dim_conv32", (3, 20, 20), {}, "divisible by 8"),
    ],
)
def test_unsuitable_models_shapes_and_options_are_refused(name, shape, table, said):
    with pytest.raises(RecipeError, match=said):
        encoder(name, shape, **table)


def test_a_model_without_one_pass_features_is_refused_by_name():
    @timm.models.register_model
    def no_features_test_model(pretrained=False, **kwargs):
        return torch.nn.Linear(3, 3)

    with pytest.raises(RecipeError, match=r"no_features_test_model.*forward_intermediates"):
        encoder("no_features_test_model", (3, 8, 8))
