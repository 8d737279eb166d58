"""Pictures: small images keep their pixels, larger ones have a bounded size, drawings show their values."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from mvssl.figures.panels import draw_as_panel
from mvssl.reporting.pictures import LARGEST, encode_pixels, panel_pixels, tint_pixels


def decode(source: str) -> np.ndarray:
    kind, _, data = source.partition(";base64,")
    assert kind == "data:image/webp"
    return np.array(Image.open(io.BytesIO(base64.b64decode(data))))


def test_small_images_are_exact_and_large_ones_bounded():
    x = torch.rand(2, 3, 8, 8)
    for pixels, expected in zip(panel_pixels(draw_as_panel("image", x), 2), x, strict=True):
        picture = encode_pixels(pixels, "small")
        assert picture.exact
        assert (decode(picture.source) == (expected * 255).round().byte().permute(1, 2, 0).numpy()).all()
    (large,) = panel_pixels(draw_as_panel("image", torch.rand(1, 3, 500, 1000)), 1)
    picture = encode_pixels(large, "large")
    assert (picture.width, picture.height, picture.exact) == (LARGEST, LARGEST // 2, False)
    assert len(picture.source) < 40_000


@pytest.mark.parametrize("shape", [(6, 50), (1, 8000), (9,), (100,), (2, 8, 8)])
def test_every_kind_of_view_is_drawn_a_picture_for_each_sample(shape):
    x = torch.randn(3, *shape)
    assert len(encode_pixels(panel_pixels(draw_as_panel("x", x), 1)[0], "x").source) < 20_000
    first, *others = panel_pixels(draw_as_panel("x", x), 3)
    assert len(others) == 2
    assert len(np.unique(first.reshape(-1, first.shape[2]), axis=0)) > 1
    assert not all((first == other).all() for other in others)
    assert len(panel_pixels(draw_as_panel("x", torch.full((1, *shape), torch.nan)), 1)) == 1


def test_colours_are_laid_over_gray_at_a_size_that_shows_them():
    colours = torch.eye(3)[:, :2, None].expand(3, 2, 2)
    laid = tint_pixels(np.full((16, 16, 3), 255, np.uint8), colours)
    assert laid.shape == (48, 48, 3)
    assert laid[0, 0].tolist() == [255, 115, 115]
    assert laid[-1, 0].tolist() == [115, 255, 115]
