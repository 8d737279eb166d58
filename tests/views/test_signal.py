"""Views of 1-D signals: each augmentation by its definition, and draws that depend on the position alone."""

import math
from types import SimpleNamespace

import pytest
import torch
from small_features import SampleList

from mvssl.errors import RecipeError
from mvssl.random import Draws
from mvssl.recipe import ViewConfig
from mvssl.views import SignalView, build_views
from mvssl.views.images.image_resampling import linear_filter_matrix
from mvssl.views.signal import draw_rotations, rotate_axes
from mvssl.views.time_crop import TimeCrop, crop_time, mask_intervals

SHAPES = {"imu": (6, 50), "slow": (1, 25), "mono": (50,), "rgb": (3, 8, 8)}
EVERYTHING = {"crop": [0.5, 1], "rotate": 30, "scale": [0.8, 1.2], "noise": 0.1, "drop": 0.2, "mask": 0.3}
PLAIN = {"normalize": "none"}


def signals(n=16, c=6, t=50):
    return torch.randn(n, c, t, generator=torch.Generator().manual_seed(0))


def draws(n=16, start=0):
    return Draws(0, torch.arange(start, start + n), scope="view/x")


def view(source, **options) -> ViewConfig:
    return ViewConfig.model_validate({"from": source, "name": "signal", **PLAIN, **options})


def batch(n=16, start=0):
    made = {"imu": signals(n), "slow": signals(n, 1, 25), "mono": signals(n)[:, 0], "rgb": torch.zeros(n, 3, 8, 8)}
    return SimpleNamespace(columns=made, position=torch.arange(start, start + n))


def test_a_signal_that_nothing_happens_to_is_itself():
    x = signals()
    assert torch.equal(SignalView((6, 50), **PLAIN)(x, draws()), x)
    assert torch.equal(SignalView((6, 50), **PLAIN)(x, None), x)


def without_masks(interval):
    return TimeCrop(interval, torch.zeros(len(interval), 0, 2))


@pytest.mark.parametrize("length", [50, 20, 7, 90])
def test_a_crop_in_time_is_antialiased_like_a_crop_of_an_image(length):
    x = signals()
    crop = SignalView((6, 50), crop=(0.3, 1.0), **PLAIN).geometry.draw(draws())
    axis = torch.cat([crop.interval * 50, torch.zeros(16, 2)], 1).float()
    torch.testing.assert_close(
        crop_time(x, crop, length), x @ linear_filter_matrix(axis, 50, length).mT, atol=1e-4, rtol=0
    )  # float32


def test_a_crop_of_full_samples_at_its_own_length_is_the_slice():
    x = signals()
    interval = torch.tensor([[0.2, 0.4]]).double().expand(16, 2)
    torch.testing.assert_close(crop_time(x, without_masks(interval), 20), x[..., 10:30])


def test_a_ramp_stays_a_ramp_wherever_it_is_cut():
    ramp = ((torch.arange(1000) + 0.5) / 1000).expand(4, 1, 1000)
    interval = torch.tensor([[0.0, 0.5], [0.5, 0.5], [0.123, 0.777], [0.25, 0.3]]).double()
    expected = interval[:, :1] + interval[:, 1:] * (torch.arange(40) + 0.5) / 40
    torch.testing.assert_close(
        crop_time(ramp, without_masks(interval), 40)[:, 0, 2:-2].double(), expected[:, 2:-2], atol=1e-3, rtol=0
    )


def test_cuts_have_the_lengths_asked_for_and_lie_everywhere():
    interval = SignalView((6, 50), crop=(0.2, 0.6), **PLAIN).geometry.draw(draws(20_000)).interval
    start, length = interval.unbind(1)
    assert length.min() >= 0.2
    assert length.max() <= 0.6
    assert length.mean() == pytest.approx(0.4, abs=0.005)
    assert (start + length).max() <= 1
    assert (start / (1 - length)).mean() == pytest.approx(0.5, abs=0.01)


def test_rotations_are_rotations_by_at_most_the_angle_about_any_axis():
    turned = draw_rotations(draws(5000), 40)
    torch.testing.assert_close(turned @ turned.mT, torch.eye(3).double().expand(5000, 3, 3))
    torch.testing.assert_close(torch.linalg.det(turned), torch.ones(5000).double())
    angle = torch.rad2deg(((turned.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1).arccos())
    assert angle.max() <= 40
    assert angle.mean() == pytest.approx(20, abs=0.5)
    axis = torch.stack([turned[:, 2, 1] - turned[:, 1, 2], turned[:, 0, 2] - turned[:, 2, 0]], 1).mean(0)
    assert axis.abs().max() < 0.02


def test_a_rotation_turns_every_group_of_three_axes_alike():
    x = signals()
    seen = SignalView((6, 50), rotate=90, **PLAIN)(x, draws())
    turn = draw_rotations(draws(), 90).float()
    for group in (slice(0, 3), slice(3, 6)):
        torch.testing.assert_close(seen[:, group], turn @ x[:, group])
        torch.testing.assert_close(seen[:, group].norm(dim=1), x[:, group].norm(dim=1))
    quarter = torch.tensor([[[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]])
    torch.testing.assert_close(rotate_axes(x[:1, :3], quarter), torch.stack([-x[0, 1], x[0, 0], x[0, 2]])[None])


def test_scale_is_one_factor_for_all_channels_or_one_for_each():
    x = signals().abs() + 1
    for per_channel in (False, True):
        factor = SignalView((6, 50), scale=(0.5, 2.0), per_channel=per_channel, **PLAIN)(x, draws()) / x
        torch.testing.assert_close(factor, factor[:, :, :1].expand_as(factor))
        assert 0.5 <= factor.min() < 0.8
        assert 1.7 < factor.max() <= 2
        assert bool((factor.std(1) > 0.01).all()) is per_channel


def test_noise_has_the_size_asked_for_in_normalised_units():
    x = signals(200)
    statistics = {"mean": [1.0], "std": [10.0]}
    noisy, clean = (SignalView((6, 50), noise=n, normalize=statistics)(x, draws(200)) for n in (0.3, 0.0))
    assert (noisy - clean).std().item() == pytest.approx(0.3, rel=0.02)


def test_dropped_channels_are_zero_throughout_and_one_always_stays():
    x = signals(4000)
    zero = SignalView((6, 50), drop=0.4, **PLAIN)(x, draws(4000)) == 0
    assert torch.equal(zero.all(2), zero.any(2))
    assert zero.double().mean() == pytest.approx(0.4 - 0.4**6 / 6, abs=0.01)
    assert zero.all(2).sum(1).max() == 5
    assert not (SignalView((1, 50), drop=0.9, **PLAIN)(x[:, :1], draws(4000)) == 0).any()


def test_masks_blank_one_stretch_of_all_channels():
    x = signals(2000).abs() + 1
    seen = SignalView((6, 50), mask=0.4, **PLAIN)(x, draws(2000))
    zero = seen == 0
    assert torch.equal(zero.all(1), zero.any(1))
    edges = zero[:, 0].int().diff(dim=1).abs().sum(1)
    assert edges.max() == 2
    assert zero.double().mean() == pytest.approx(0.2, abs=0.01)
    assert zero[:, 0].sum(1).max() <= 0.4 * 50 + 1
    thrice = SignalView((6, 50), mask=0.1, masks=3, **PLAIN)(x, draws(2000)) == 0
    assert thrice[:, 0].int().diff(dim=1).clamp(min=0).sum(1).max() == 3


def test_blanks_lie_where_they_say():
    x = torch.ones(1, 2, 10)
    blanks = torch.tensor([[[0.1, 0.2], [0.75, 0.3]]]).double()
    assert mask_intervals(x, blanks)[0, 0].tolist() == [1, 0, 0, 1, 1, 1, 1, 0, 0, 0]
    assert mask_intervals(x, TimeCrop.full(1).masks) is x


def test_channels_are_kept_by_number_and_one_channel_needs_no_dimension():
    x = signals()
    assert torch.equal(SignalView((6, 50), channels=[4, 0], **PLAIN)(x, None), x[:, [4, 0]])
    one = SignalView((50,), **PLAIN)
    assert one.shape == (1, 50)
    assert torch.equal(one(x[:, 0], None), x[:, :1])


def test_a_sample_gets_the_same_draw_in_any_batch():
    views = build_views({"a": view("imu", count=2, **EVERYTHING), "b": view("mono", length=30, crop=[0.5, 1])}, SHAPES)
    full, chosen = batch(), torch.tensor([5, 2])
    part = SimpleNamespace(
        columns={name: column[chosen] for name, column in full.columns.items()}, position=full.position[chosen]
    )
    expected, seen = views(full, 3), views(part, 3)
    for name in views.names:
        torch.testing.assert_close(seen[name], expected[name][chosen], atol=1e-6, rtol=0)
        assert not torch.equal(views(full, 4)[name], expected[name])
    assert not torch.equal(expected["a_0"], expected["a_1"])


def test_two_units_share_crop_and_mask_between_rates_and_nothing_else():
    ramp = (torch.arange(200) + 0.5) / 200
    columns = {"imu": 1 + ramp.expand(16, 6, 200), "slow": 1 + ramp[2::4].expand(16, 1, 50)}
    recipe = {
        "imu": view("imu", crop=[0.3, 0.8], mask=0.3, length=40),
        "slow": view("slow", geometry="imu", length=40),
        "alone": view("slow", crop=[0.3, 0.8], mask=0.3, length=40),
        "noisy": view("imu", geometry="imu", noise=0.1, length=40),
    }
    views = build_views(recipe, {"imu": (6, 200), "slow": (1, 50)})
    seen = views(SimpleNamespace(columns=columns, position=torch.arange(16)), 0)
    inner = (slice(None), slice(0, 1), slice(3, 37))
    torch.testing.assert_close(seen["slow"][inner], seen["imu"][inner], atol=0.02, rtol=0)
    assert torch.equal(seen["slow"][:, 0] == 0, seen["imu"][:, 0] == 0)
    assert not torch.equal(seen["alone"] == 0, seen["slow"] == 0)
    assert (seen["noisy"] - seen["imu"]).std() == pytest.approx(0.1, rel=0.2)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"x": view("rgb")}, r"signal view needs a column \[c, t\] or \[t\]"),
        ({"x": view("imu", crop=[0.5, 1.5])}, "views.x: crop"),
        ({"x": view("imu", mask=1.0)}, "mask: 1.0"),
        ({"x": view("imu", masks=0)}, "masks: 0"),
        ({"x": view("slow", rotate=10)}, "views.x: rotate: .*1 channel"),
        ({"x": view("imu", rotate=270)}, "0 to 180"),
        ({"x": view("imu", scale=[0.0, 1.0])}, "scale"),
        ({"x": view("imu", noise=-1)}, "noise: -1"),
        ({"x": view("imu", drop=1.0)}, "drop: 1"),
        ({"x": view("imu", channels=[6])}, "0 to 5"),
        ({"x": view("imu", length=0)}, "length: 0"),
        ({"x": view("imu", normalize={"mean": [0, 0], "std": [1]})}, "2 numbers as mean; it needs 6"),
        ({"x": view("imu", jitter=0.1)}, "no option|unknown key"),
        ({"x": view("imu", geometry="y"), "y": ViewConfig.model_validate({"from": "rgb"})}, "no views of one kind"),
        ({"x": view("slow", geometry="y", mask=0.1), "y": view("imu")}, "views.x.mask: the geometry is that of"),
    ],
)
def test_faults_are_refused_with_their_place(recipe, message):
    with pytest.raises(RecipeError, match=message):
        build_views(recipe, SHAPES)


def test_measured_channels_have_mean_zero_and_deviation_one():
    from mvssl.views import resolve_statistics

    rng = signals(40) * torch.arange(1, 7)[:, None] + 5
    source = SampleList({"imu": x.numpy()} for x in rng)
    table = ViewConfig.model_validate({"from": "imu", "name": "signal"})
    resolved = resolve_statistics({"x": table}, SHAPES, source)
    seen = build_views(resolved, SHAPES).clean(SimpleNamespace(columns={"imu": rng}, position=torch.arange(40)))["x"]
    torch.testing.assert_close(seen.mean((0, 2)), torch.zeros(6), atol=1e-3, rtol=0)
    torch.testing.assert_close(seen.std((0, 2), correction=0), torch.ones(6), atol=1e-3, rtol=0)
    assert math.isclose(resolved["x"].options["normalize"]["mean"][0], float(rng[:, 0].mean()), rel_tol=1e-3)
