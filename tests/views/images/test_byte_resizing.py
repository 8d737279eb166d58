"""Bytes resized one by one on a CPU against the matrices in float32."""

import pytest
import torch

from mvssl.random import Draws
from mvssl.views import ImageView
from mvssl.views.images.byte_resizing import SMALL, has_byte_kernel
from mvssl.views.images.geometry import ImageGeometry, Placement
from mvssl.views.images.image_resampling import apply_placement, resample

ROUNDING = 1.01  # of 255: half for the columns, half for the rows, and the weights' own rounding


def images(n=12, c=3, h=70, w=90):
    return torch.randint(256, (n, c, h, w), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def placed(n=12, inside=(70, 90), outside=(64, 64), **options):
    return ImageGeometry(inside, outside, **options).draw(Draws(3, torch.arange(n)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("c", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(64, 64), (70, 90), (20, 130)])
def test_bytes_are_within_one_of_the_exact_filter(size, c, layout):
    x, placement = images(c=c).contiguous(memory_format=layout), placed(crop=(0.1, 1.0), flip=0.5, outside=size)
    ours = apply_placement(x, placement, size, "bilinear")
    assert ours.dtype == torch.uint8
    assert (ours - resample(x, placement, size, "bilinear")).abs().max() < ROUNDING


def test_a_flip_alone_copies_the_bytes():
    x, placement = images(), placed(flip=0.5, outside=(70, 90))
    ours = apply_placement(x, placement, (70, 90), "bilinear")
    for image, result, flip in zip(x, ours, placement.flip, strict=True):
        assert torch.equal(result, image.flip(-1) if flip else image)


def test_a_part_of_a_larger_tensor_is_read_at_its_own_place():
    whole, placement = images(n=14, c=5), placed(crop=(0.1, 1.0))
    part = whole[2:, 1:4]
    assert torch.equal(
        apply_placement(part, placement, (64, 64), "bilinear"),
        apply_placement(part.clone(), placement, (64, 64), "bilinear"),
    )


def test_a_row_does_not_depend_on_the_others():
    x, cut = images(), placed(crop=(0.1, 1.0), flip=0.5)
    shifted = placed(crop=(0.1, 1.0), inside=(35, 45)).box  # whole pixels at another resolution are parts of these
    mixed = cut._replace(box=torch.where(torch.arange(12)[:, None, None] % 2 > 0, cut.box, shifted + 0.001))
    together = apply_placement(x, mixed, (64, 64), "bilinear")
    for k in range(12):
        row = Placement(mixed.box[k : k + 1], mixed.flip[k : k + 1], mixed.shift[k : k + 1], None)
        alone = apply_placement(x[k : k + 1], row, (64, 64), "bilinear").float()
        torch.testing.assert_close(together[k : k + 1], alone, atol=1e-3, rtol=0)
        assert torch.equal(together[k], together[k].round()) == (k % 2 == 1)


def test_shifted_images_many_channels_floats_and_small_images_go_by_matrices():
    assert has_byte_kernel(images(c=4), (64, 64))
    assert not has_byte_kernel(images(c=5), (64, 64))
    assert not has_byte_kernel(images().float(), (64, 64))
    assert not has_byte_kernel(images(h=SMALL, w=SMALL), (SMALL, SMALL))
    placement = placed(translate=4, outside=(70, 90))
    torch.testing.assert_close(
        apply_placement(images(), placement, (70, 90), "bilinear"), resample(images(), placement, (70, 90), "bilinear")
    )


@pytest.mark.parametrize("options", [{}, {"crop": (0.1, 1.0), "flip": 0.5}])
def test_a_view_of_bytes_is_within_one_of_255_of_the_view_of_the_same_floats(options):
    x, draws = images(), Draws(0, torch.arange(12))
    view = ImageView((3, 70, 90), size=64, normalize="none", **options)
    plain = view(x.float() / 255, draws)
    assert (view(x, draws) - plain).abs().max() < ROUNDING / 255


def test_half_precision_of_a_gpu_holds_bytes_to_a_third_of_one():
    x, placement = images(), placed(crop=(0.1, 1.0), flip=0.5)
    exact = resample(x, placement, (64, 64), "bilinear")
    half = resample(x, placement, (64, 64), "bilinear", dtype=torch.float16)
    assert (half - exact).abs().max() < 0.34
