"""Blur against torchvision, on images smaller and larger than a tile."""

import pytest
import torch
import torchvision.transforms.v2.functional as tv

from mvssl.views.images.blurring import TILE, blur


@pytest.mark.parametrize(("h", "w"), [(24, 17), (7, 32), (TILE + 1, 3 * TILE - 1), (8 * TILE, 41)])
def test_blur_is_torchvisions_with_a_sigma_for_each_sample(h, w):
    x = torch.rand(6, 3, h, w, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.1, 0.3, 0.5, 1.0, 1.7, 2.0])
    ours = blur(x, sigma, radius=6)
    for k in range(6):
        theirs = tv.gaussian_blur(x[k], kernel_size=[13, 13], sigma=[sigma[k].item()] * 2)
        torch.testing.assert_close(ours[k], theirs, atol=1e-5, rtol=0)


def test_rows_with_sigma_0_do_not_change():
    x = torch.rand(3, 2, 40, 50)
    blurred = blur(x, torch.tensor([0.0, 1.0, 0.0]), radius=6)
    assert torch.equal(blurred[::2], x[::2])
    assert (blurred[1] - x[1]).abs().max() > 0.1


@pytest.mark.parametrize(("h", "w"), [(1, 9), (4, 4), (6, 5)])
def test_images_smaller_than_the_window_keep_their_mean_of_one_colour(h, w):
    x = torch.full((2, 3, h, w), 0.7)
    torch.testing.assert_close(blur(x, torch.tensor([1.0, 5.0]), radius=15), x)


def test_a_batch_in_which_no_row_is_blurred_passes():
    none = torch.zeros(0, 3, 8, 8)
    assert blur(none, torch.zeros(0), radius=2).shape == none.shape
