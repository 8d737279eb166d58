"""Colour against torchvision and kornia with the same parameters."""

import itertools

import kornia
import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv

from mvssl.errors import RecipeError
from mvssl.random import Draws
from mvssl.views.images.color import (
    GRAY,
    HUE,
    QUARTER_TURN,
    YIQ,
    ColorJitter,
    Recolor,
    apply_jitter,
    blur,
    compose_jitter,
    from_space,
    rotate_hue,
    solarize,
    to_space,
)

STEPS = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
TOLERANCE = {"atol": 3e-4, "rtol": 0}  # torchvision's gray weights sum to 0.9999


def compose(factors, turns, order, gray, hue="hsv"):
    """factors [n, 3], turns [n], order [n, 4]: the operations from first to last, gray [n]."""
    rank = order.argsort(1)
    early = (rank[:, :HUE] < rank[:, [HUE]]).T.numpy()
    return compose_jitter(factors.T.numpy(), turns.numpy(), early, gray.numpy(), hue)


def as_matrices(recolor: Recolor, channels: int):
    """The same operation as matrices on the pixel and on the mean colour, both [n, c, c]."""
    same = torch.eye(channels).double()
    luma = GRAY.expand(3, 3) if channels == 3 else same
    gain, gray, mean = (number.double()[:, None, None] for number in recolor[:3])
    pixel = gain * same + gray * luma
    if recolor.turn is not None:
        pixel = pixel + recolor.turn.double()[:, None, None] * QUARTER_TURN
    return pixel, mean * luma


def multiply_operations(factors, turn, order, gray, channels, hue):
    """One row's operations, multiplied one after the other as matrices; those after an exact hue apart."""
    same, nothing = np.eye(channels), np.zeros((channels, channels))
    luma = np.tile(GRAY.numpy(), (3, 1)) if channels == 3 else same
    angle, to_yiq = 2 * np.pi * turn, YIQ.numpy()
    rotation = np.array([[1, 0, 0], [0, np.cos(angle), np.sin(angle)], [0, -np.sin(angle), np.cos(angle)]])
    b, c, s = factors
    linear = np.linalg.inv(to_yiq) @ rotation @ to_yiq if hue == "linear" else same
    steps = [(b * same, nothing), (c * same, (1 - c) * luma), (s * same + (1 - s) * luma, nothing), (linear, nothing)]
    parts = [(same, nothing), (same, nothing)]
    part = 0
    for operation in order:
        pixel, mean = parts[part]
        step, of_mean = steps[operation]
        parts[part] = step @ pixel, step @ mean + of_mean @ (pixel + mean)
        part = 1 if operation == HUE and hue == "hsv" and turn else part
    if gray:
        parts[part] = luma @ parts[part][0], luma @ parts[part][1]
    return parts


@pytest.mark.parametrize(("channels", "hue"), [(3, "hsv"), (3, "linear"), (5, "hsv")])
def test_four_numbers_are_the_product_of_the_operations_matrices(channels, hue):
    order = torch.tensor(list(itertools.permutations(range(4)))).repeat(4, 1)
    n, generator = len(order), torch.Generator().manual_seed(0)
    factors = 2 * torch.rand(n, 3, generator=generator).double()
    turns, gray = torch.rand(n, generator=generator).double() - 0.5, torch.arange(n) % 5 == 0
    turns[::3] = 0
    if channels != 3:
        factors[:, 2], turns, gray = 1, torch.zeros(n).double(), torch.zeros(n, dtype=torch.bool)
    drawn = compose(factors, turns, order, gray, hue)
    first, second = as_matrices(drawn.first, channels), as_matrices(drawn.second, channels)
    turned = drawn.rows.tolist()
    assert turned == (turns.nonzero()[:, 0].tolist() if hue == "hsv" else [])
    assert torch.equal(drawn.turns, turns[drawn.rows].float())
    for row in range(n):
        expected = multiply_operations(
            factors[row].tolist(), turns[row].item(), order[row].tolist(), gray[row], channels, hue
        )
        for k in range(2):
            torch.testing.assert_close(first[k][row], torch.from_numpy(expected[0][k]), atol=1e-6, rtol=0)
            if row in turned:
                theirs = torch.from_numpy(expected[1][k])
                torch.testing.assert_close(second[k][turned.index(row)], theirs, atol=1e-6, rtol=0)


def images(n=8, c=3, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(n, c, 12, 10, generator=torch.Generator().manual_seed(0))


def test_every_order_of_the_four_steps_is_torchvisions_chain():
    orders = torch.tensor(list(itertools.permutations(range(4))))
    n = len(orders)
    x = images(n, low=0.3, high=0.6)  # no step leaves [0, 1], so it does not matter where one clamps
    generator = torch.Generator().manual_seed(1)
    factors = 0.8 + 0.4 * torch.rand(n, 3, generator=generator).double()
    turns = 0.4 * torch.rand(n, generator=generator).double() - 0.2
    turns[::3] = 0  # rows without hue take the other road
    gray = torch.arange(n) % 4 == 1
    ours = apply_jitter(x, compose(factors, turns, orders, gray))
    for k, order in enumerate(orders.tolist()):
        theirs = x[k]
        for step in order:
            theirs = STEPS[step](theirs, [*factors[k].tolist(), turns[k].item()][step])
        theirs = tv.rgb_to_grayscale(theirs, 3) if gray[k] else theirs
        torch.testing.assert_close(ours[k], theirs, **TOLERANCE)


def test_where_a_step_clips_the_difference_is_the_clamp_between_steps():
    x = torch.full((1, 3, 2, 2), 0.8)
    factors = torch.tensor([[2.0, 1.0, 1.0]]).double()
    rest = torch.zeros(1).double(), torch.tensor([[0, 1, 2, 3]]), torch.tensor([False])
    one = compose(factors, *rest)
    assert apply_jitter(x, one).unique().item() == pytest.approx(1.6)  # the view clamps once, after all steps
    half = compose(1 / factors, *rest)
    torch.testing.assert_close(apply_jitter(apply_jitter(x, one), half), x)  # torchvision would give 0.5 here


def test_hue_is_torchvisions_and_kornias_on_all_of_rgb():
    x, turns = images(), torch.linspace(-0.5, 0.5, 8)
    x[0, :, 0] = 0.4  # gray pixels have no hue
    ours = rotate_hue(x, turns)
    for k in range(8):
        torch.testing.assert_close(ours[k], tv.adjust_hue(x[k], turns[k].item()), atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, kornia.enhance.adjust_hue(x, turns * 2 * torch.pi), atol=1e-5, rtol=0)


def test_linear_hue_keeps_luma_and_gray_and_a_full_turn_is_nothing():
    n = 8
    x = images(n)
    x[0] = 0.4
    plain, order, no = torch.ones(n, 3).double(), torch.arange(4).expand(n, 4), torch.zeros(n, dtype=torch.bool)
    turned = apply_jitter(x, compose(plain, torch.full((n,), 0.3).double(), order, no, "linear"))
    torch.testing.assert_close(to_space(turned, "gray"), to_space(x, "gray"), atol=1e-3, rtol=0)
    torch.testing.assert_close(turned[0], x[0], atol=1e-5, rtol=0)
    assert (turned[1:] - x[1:]).abs().max() > 0.1
    full = apply_jitter(x, compose(plain, torch.ones(n).double(), order, no, "linear"))
    torch.testing.assert_close(full, x, atol=1e-5, rtol=0)


def test_drawn_factors_keep_their_ranges_and_rows_without_jitter_stay():
    drawn = ColorJitter(3, (0.4, 0.4, 0.4, 0.2), 0.8, 0.25, "hsv")
    position = torch.arange(4000)
    result = drawn.draw(Draws(0, position))
    assert len(result.rows) / 4000 == pytest.approx(0.8, abs=0.03)
    assert result.turns.abs().max() <= 0.2
    assert result.turns.abs().max() > 0.19
    first = result.first
    untouched = (first.gain == 1) & (first.luma == 0) & (first.mean == 0)
    untouched[result.rows] = False
    assert untouched.double().mean() == pytest.approx(0.2 * 0.75, abs=0.02)


def test_brightness_and_contrast_work_for_any_number_of_channels():
    x = images(4, c=13)
    factors = torch.tensor([[1.5, 0.5, 1.0]]).double().expand(4, 3)
    nothing = torch.zeros(4, dtype=torch.bool)
    ours = apply_jitter(x, compose(factors, torch.zeros(4).double(), torch.arange(4).expand(4, 4), nothing))
    bright = x * 1.5
    mean = bright.mean((2, 3), keepdim=True)
    torch.testing.assert_close(ours, 0.5 * bright + 0.5 * mean)


@pytest.mark.parametrize("channels", [1, 2, 13])
def test_saturation_hue_and_gray_need_three_channels(channels):
    for strengths, gray in (((0.0, 0.0, 0.4, 0.0), 0.0), ((0.0, 0.0, 0.0, 0.1), 0.0), (None, 0.2)):
        with pytest.raises(RecipeError, match="3 channels"):
            ColorJitter(channels, strengths, 1.0, gray, "hsv")


def test_lab_is_kornias_and_ydbdr_follows_its_definition():
    x = images()
    torch.testing.assert_close(to_space(x, "lab"), kornia.color.rgb_to_lab(x), atol=1e-3, rtol=0)
    r, g, b = x.unbind(1)
    y, db, dr = to_space(x, "ydbdr").unbind(1)
    torch.testing.assert_close(y, 0.299 * r + 0.587 * g + 0.114 * b)
    torch.testing.assert_close(db, 1.505 * (b - y), atol=2e-3, rtol=0)
    torch.testing.assert_close(dr, -1.902 * (r - y), atol=2e-3, rtol=0)


@pytest.mark.parametrize("space", ["rgb", "lab", "ydbdr"])
def test_colour_spaces_go_there_and_back(space):
    x = images()
    torch.testing.assert_close(from_space(to_space(x, space), space), x, atol=2e-3, rtol=0)


@pytest.mark.parametrize("threshold", [0.25, 0.5])
def test_solarize_is_torchvisions(threshold):
    x = images()
    torch.testing.assert_close(solarize(x, threshold), tv.solarize(x, threshold))


def test_blur_is_torchvisions_with_a_sigma_for_each_sample():
    x = torch.rand(5, 3, 24, 17, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 0.5, 1.0, 1.7, 2.0])
    ours = blur(x, sigma, radius=6)
    for k in range(5):
        theirs = tv.gaussian_blur(x[k], kernel_size=[13, 13], sigma=[sigma[k].item()] * 2)
        torch.testing.assert_close(ours[k], theirs, atol=1e-5, rtol=0)


def test_a_batch_in_which_no_row_is_blurred_passes():
    none = torch.zeros(0, 3, 8, 8)
    assert blur(none, torch.zeros(0), radius=2).shape == none.shape
