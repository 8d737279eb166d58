"""Colour against torchvision and kornia with the same parameters."""

import itertools

import kornia
import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from jitters import compose

from mvssl.errors import RecipeError
from mvssl.random import Draws
from mvssl.views.images.color import (
    GRAY,
    HUE,
    QUARTER_TURN,
    YIQ,
    ColorJitter,
    Recolor,
    from_space,
    solarize,
    to_space,
)


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
    assert torch.equal(drawn.turns, turns.float()) if hue == "hsv" and channels == 3 else drawn.turns is None
    for row in range(n):
        expected = multiply_operations(
            factors[row].tolist(), turns[row].item(), order[row].tolist(), gray[row], channels, hue
        )
        for k in range(2):
            torch.testing.assert_close(first[k][row], torch.from_numpy(expected[0][k]), atol=1e-6, rtol=0)
            torch.testing.assert_close(second[k][row], torch.from_numpy(expected[1][k]), atol=1e-6, rtol=0)


def images(n=8, c=3, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(n, c, 12, 10, generator=torch.Generator().manual_seed(0))


def test_drawn_factors_keep_their_ranges_and_rows_without_jitter_stay():
    drawn = ColorJitter(3, (0.4, 0.4, 0.4, 0.2), 0.8, 0.25, "hsv")
    position = torch.arange(4000)
    result = drawn.draw(Draws(0, position))
    assert (result.turns != 0).double().mean() == pytest.approx(0.8, abs=0.03)
    assert result.turns.abs().max() <= 0.2
    assert result.turns.abs().max() > 0.19
    first = result.first
    untouched = (first.gain == 1) & (first.luma == 0) & (first.mean == 0)
    untouched &= result.turns == 0
    assert untouched.double().mean() == pytest.approx(0.2 * 0.75, abs=0.02)


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
