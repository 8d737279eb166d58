"""Which maps are drawn, and their colours."""

import torch

from mvssl.reporting.sections.maps import choose_levels, colour_places


def test_the_deepest_map_with_places_is_drawn_and_a_finer_one():
    assert choose_levels([(64, 64), (16, 16), (8, 8), (4, 4), (1, 1)]) == [2, 3]
    assert choose_levels([(8, 8), (8, 8)]) == [1]
    assert choose_levels([(1, 1), (2, 2)]) == []


def test_equal_places_have_one_colour():
    x = torch.zeros(4, 6, 4, 4)
    x[:, 0, :, :2], x[:, 1, :, 2:] = 1, 1
    colours, share = colour_places(x)
    assert (colours[..., :2] == colours[0, :, 0, 0][:, None, None]).all()
    assert (colours[:, 0, :, 0] != colours[:, 0, :, 3]).all()
    assert abs(share[0] - 1) < 1e-5
