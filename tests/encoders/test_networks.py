"""The papers' networks: their published sizes, receptive fields and start, and timm's conventions."""

import pytest
import timm
import torch
from torch.testing import assert_close

import mvssl.encoders  # registers the networks


def parameters(name, **options):
    with torch.device("meta"):
        return sum(p.numel() for p in timm.create_model(name, num_classes=0, **options).parameters()) / 1e6


def test_parameter_counts_are_the_published_ones():
    # convolutions, their norms, the wide layer and the code; no bias before a norm
    wide = 16 * (3 * 64 + 64 * 128 + 128 * 256) + 2 * (64 + 128 + 256 + 1024) + 4096 * 1024 + 1024 * 64 + 64
    assert parameters("dim_conv32") == pytest.approx(wide / 1e6)
    assert wide / 1e6 == pytest.approx(4.92, abs=0.005)
    assert parameters("amdim_32", ndf=256, n_rkhs=2048, depth=10) == pytest.approx(111.1, abs=0.1)
    assert parameters("amdim_32") == pytest.approx(15.8, abs=0.05)
    # the authors' code builds batch norms that it never uses, here 0.1 to 0.3 M parameters
    assert parameters("amdim_128", ndf=192, n_rkhs=1536, depth=8) == pytest.approx(194.4, abs=0.2)
    assert parameters("amdim_128", ndf=320, n_rkhs=2560, depth=10) == pytest.approx(626.6, abs=0.3)
    assert parameters("mlp", output=128) == pytest.approx(1.985, abs=0.001)
    # 9408 weights of the 7x7 stem become 1728
    assert parameters("resnet18") - parameters("resnet18_small") == pytest.approx((9408 - 1728) / 1e6)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_amdim_maps_are_seven_five_and_one(size):
    model = timm.create_model(f"amdim_{size}", ndf=4, n_rkhs=32, depth=2).eval()
    final, maps = model.forward_intermediates(torch.randn(2, 3, size, size))
    assert [m.shape[-1] for m in maps] == [7, 5, 1]
    assert_close(model.forward_head(final), maps[-1].flatten(1))


def reach(model, size, which, place):
    """Side of the square of pixels that one location of one map depends on."""
    x = torch.randn(1, 3, size, size, dtype=torch.float64, requires_grad=True)
    model.forward_intermediates(x)[1][which][0, :, place, place].sum().backward()
    rows = x.grad[0].abs().sum(dim=(0, 2)).nonzero()
    return int(rows.max() - rows.min()) + 1


@pytest.mark.parametrize(("size", "fields"), [(32, (8, 16, 32)), (64, (16, 32, 64)), (128, (35, 67, 128))])
def test_amdim_locations_see_the_patches_of_the_paper(size, fields):
    model = timm.create_model(f"amdim_{size}", ndf=4, n_rkhs=32, depth=2).double().eval()
    for parameter in model.parameters():  # positive throughout: no path can cancel another
        torch.nn.init.uniform_(parameter, 0.01, 0.02)
    assert [reach(model, size, which, place) for which, place in enumerate((3, 2, 0))] == list(fields)


def test_an_amdim_unit_starts_as_its_shortcut():
    unit = mvssl.encoders.amdim.Unit(2, 5, 4, 2, use_bn=False)
    x = torch.randn(3, 2, 10, 10)
    y = unit(x)
    assert_close(y[:, :2], torch.nn.functional.avg_pool2d(x, 4, 2))
    assert y[:, 2:].abs().max() == 0


def test_the_trunk_of_amdim_has_no_batch_norm_unless_asked():
    def norms(**options):
        model = timm.create_model("amdim_32", ndf=4, n_rkhs=16, depth=2, **options)
        return sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())

    assert norms() == 1
    assert norms(use_bn=True) > 10


def test_dim_maps_are_those_of_the_paper():
    model = timm.create_model("dim_conv32").eval()
    final, maps = model.forward_intermediates(torch.randn(2, 3, 32, 32))
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 16, 16), (128, 8, 8), (256, 4, 4), (1024, 1, 1)]
    assert model.forward_head(final).shape == (2, 64)
    assert timm.create_model("dim_conv64").eval()(torch.randn(1, 3, 64, 64)).shape == (1, 64)


def test_small_resnets_keep_the_resolution_in_their_stem():
    maps = timm.create_model("resnet18_small").eval().forward_intermediates(torch.randn(1, 3, 32, 32))[1]
    assert [m.shape[-1] for m in maps] == [32, 32, 16, 8, 4]


@pytest.mark.parametrize("name", ["dim_conv32", "amdim_32", "mlp", "conv1d", "resnet10_small"])
def test_timms_conventions_hold(name):
    model = timm.create_model(name, num_classes=5).eval()
    c, h, w = model.default_cfg["input_size"]
    x = torch.randn(2, c, h, w)
    assert model(x).shape == (2, 5)
    final = model.forward_features(x)
    assert_close(model.forward_head(final), model(x))
    assert model.forward_head(final, pre_logits=True).shape == (2, model.num_features)
    model.reset_classifier(0)
    assert_close(model(x), model.forward_head(final, pre_logits=True))
    assert model.num_classes == 0
    assert isinstance(model.get_classifier(), torch.nn.Identity)
    maps = model.forward_intermediates(x, intermediates_only=True)
    assert [m.shape[1] for m in maps] == [info["num_chs"] for info in model.feature_info]


def test_conv1d_halves_the_time_in_each_stage_and_averages_what_is_left():
    model = timm.create_model("conv1d", in_chans=9, channels=(8, 16, 32), kernels=(9, 5, 4)).eval()
    final, maps = model.forward_intermediates(torch.randn(2, 9, 125))
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 1, 63), (16, 1, 32), (32, 1, 17)]
    assert_close(model.forward_head(final), maps[-1].mean((2, 3)))
    widths = [stage[0][0].kernel_size[0] for stage in timm.create_model("conv1d", channels=(4,) * 4).stages]
    assert widths == [9, 5, 5, 5]
    assert parameters("conv1d", in_chans=9, channels=(8, 16), kernels=5) * 1e6 == 9 * 8 * 5 + 8 * 16 * 5 + 2 * 24


def test_conv1d_takes_a_signal_as_an_image_one_pixel_high():
    model, x = timm.create_model("conv1d", in_chans=3, blocks=1).eval(), torch.randn(2, 3, 70)
    assert_close(model(x[:, :, None]), model(x))


def test_a_residual_block_starts_as_its_shortcut():
    block, x = mvssl.encoders.conv1d_net.ResidualBlock1d(6, 5), torch.randn(3, 6, 20).abs()
    assert torch.equal(block(x), x)
    torch.nn.init.ones_(block.layers[2].weight)
    assert not torch.equal(block(x), x)


def test_an_mlp_with_norm_has_one_before_each_relu():
    layers = timm.create_model("mlp", widths=(8, 8), output=4, norm=True).layers
    assert [type(layer).__name__ for layer in layers] == [*["Linear", "BatchNorm1d", "ReLU"] * 2, "Linear"]
    assert parameters("mlp", widths=(8, 8), norm=True) - parameters("mlp", widths=(8, 8)) == pytest.approx(32e-6)


def test_indices_pick_as_in_timm():
    model, x = timm.create_model("dim_conv32").eval(), torch.randn(1, 3, 32, 32)
    widths = [[m.shape[1] for m in model.forward_intermediates(x, indices=i)[1]] for i in (2, [0, 2], [-1], None)]
    assert widths == [[256, 1024], [64, 256], [1024], [64, 128, 256, 1024]]
    with pytest.raises(ValueError, match="there are 4"):
        model.forward_intermediates(x, indices=[4])
