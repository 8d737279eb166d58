"""Images of any number of channels as RGB pixels, and colours laid over them."""

import pytest
import torch
from torch.testing import assert_close

from mvssl.figures.pixels import TINT, find_rgb_bands, is_measured, rgb_pixels, tint


@pytest.mark.parametrize("channels", [1, 2, 3, 13])
def test_any_number_of_bands_becomes_a_picture(channels):
    shown = rgb_pixels(1000 * torch.randn(2, channels, 8, 8))
    assert shown.shape == (2, 3, 8, 8)
    assert shown.min() >= 0
    assert shown.max() <= 1


def test_one_band_is_gray_unless_it_was_measured():
    x = torch.rand(2, 1, 8, 8)
    gray, mapped = rgb_pixels(x), rgb_pixels(x, measured=True)
    assert torch.equal(gray, x.expand(-1, 3, -1, -1))
    assert not torch.allclose(mapped[:, 0], mapped[:, 2], atol=0.1)
    assert is_measured(x, "a")
    assert is_measured(torch.zeros(1, dtype=torch.uint8), "depth_png")
    assert not is_measured(torch.zeros(1, dtype=torch.uint8), "orange", "deeper", "air")


def test_a_false_colour_takes_red_green_and_blue_by_name():
    sentinel = ["B01", "B02", "B03", "B04", "B08"]
    assert find_rgb_bands(sentinel, 5) == [3, 2, 1]
    assert find_rgb_bands(["nir", "Red", "Green", "Blue"], 4) == [1, 2, 3]
    assert find_rgb_bands(["a", "b", "c", "d"], 4) == find_rgb_bands([], 4) == [3, 2, 0]
    x = torch.rand(2, 5, 8, 8)
    assert torch.equal(rgb_pixels(x, sentinel), rgb_pixels(x[:, [3, 2, 1]] * 2))  # stretched alike


def test_each_place_is_a_tile_in_its_colour_over_the_gray_image():
    pixels, palette = torch.rand(1, 3, 4, 6), torch.eye(3)
    shown = tint(pixels, palette[torch.tensor([[[0, 1], [2, 0]]])].movedim(-1, 1))
    gray = pixels.mean(1)
    assert_close(shown[0, :, 1, 2], TINT * palette[0] + (1 - TINT) * gray[0, 1, 2])  # upper left
    assert_close(shown[0, :, 1, 3], TINT * palette[1] + (1 - TINT) * gray[0, 1, 3])  # upper right
    assert_close(shown[0, :, 3, 0], TINT * palette[2] + (1 - TINT) * gray[0, 3, 0])  # lower left
