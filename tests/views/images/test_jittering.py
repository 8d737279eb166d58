"""Colour jitter of images against torchvision, kornia and HSV, with the same parameters."""

import itertools

import kornia
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from jitters import compose

from mvssl.views.images.color import Jitter, Recolor, to_space
from mvssl.views.images.jittering import apply_jitter, plan_jitter

STEPS = [tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation, tv.adjust_hue]
TOLERANCE = {"atol": 3e-4, "rtol": 0}  # torchvision's gray weights sum to 0.9999


def images(n=8, c=3, low=0.0, high=1.0):
    return low + (high - low) * torch.rand(n, c, 12, 10, generator=torch.Generator().manual_seed(0))


def jitter(x, drawn, clamp=True):
    return apply_jitter(x, plan_jitter(drawn, x.shape[1]), clamp)


def rotate(x, turns, clamp=True):
    """The hue alone."""
    one, nothing = torch.ones(len(x)), torch.zeros(len(x))
    same = Recolor(one, nothing, nothing, None)
    return jitter(x, Jitter(same, turns, same), clamp)


def rotate_in_hsv(x, turns):
    """The definition: hue of HSV in sixths of the circle, from the sorted channels, and back."""
    r, g, b = x.unbind(1)
    top, bottom = x.amax(1), x.amin(1)
    chroma = top - bottom
    sextant = torch.where(top == r, (g - b) / chroma, torch.where(top == g, 2 + (b - r) / chroma, 4 + (r - g) / chroma))
    sextant = torch.where(chroma == 0, 0, sextant) + 6 * turns[:, None, None]
    below = [(2 - ((sextant - peak + 3) % 6 - 3).abs()).clamp(0, 1) for peak in (0, 2, 4)]
    return torch.stack([bottom + chroma * share for share in below], 1)


def test_every_order_of_the_four_steps_is_torchvisions_chain():
    orders = torch.tensor(list(itertools.permutations(range(4))))
    n = len(orders)
    x = images(n, low=0.3, high=0.6)  # no step leaves [0, 1], so it does not matter where one clamps
    generator = torch.Generator().manual_seed(1)
    factors = 0.8 + 0.4 * torch.rand(n, 3, generator=generator).double()
    turns = 0.4 * torch.rand(n, generator=generator).double() - 0.2
    turns[::3] = 0  # rows without hue take the other road
    gray = torch.arange(n) % 4 == 1
    ours = jitter(x, compose(factors, turns, orders, gray))
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
    assert jitter(x, one, clamp=False).unique().item() == pytest.approx(1.6)  # the view clamps once, after all steps
    half = compose(1 / factors, *rest)
    torch.testing.assert_close(jitter(jitter(x, one, clamp=False), half), x)  # torchvision would give 0.5 here


def test_hue_is_torchvisions_and_kornias_on_all_of_rgb():
    x, turns = images(), torch.linspace(-0.5, 0.5, 8)
    x[0, :, 0] = 0.4  # gray pixels have no hue
    ours = rotate(x, turns)
    for k in range(8):
        torch.testing.assert_close(ours[k], tv.adjust_hue(x[k], turns[k].item()), atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, kornia.enhance.adjust_hue(x, turns * 2 * torch.pi), atol=1e-5, rtol=0)


def test_linear_hue_keeps_luma_and_gray_and_a_full_turn_is_nothing():
    n = 8
    x = images(n)
    x[0] = 0.4
    plain, order, no = torch.ones(n, 3).double(), torch.arange(4).expand(n, 4), torch.zeros(n, dtype=torch.bool)
    turned = jitter(x, compose(plain, torch.full((n,), 0.3).double(), order, no, "linear"), clamp=False)
    torch.testing.assert_close(to_space(turned, "gray"), to_space(x, "gray"), atol=1e-3, rtol=0)
    torch.testing.assert_close(turned[0], x[0], atol=1e-5, rtol=0)
    assert (turned[1:] - x[1:]).abs().max() > 0.1
    full = jitter(x, compose(plain, torch.ones(n).double(), order, no, "linear"), clamp=False)
    torch.testing.assert_close(full, x, atol=1e-5, rtol=0)


def test_brightness_and_contrast_work_for_any_number_of_channels():
    x = images(4, c=13)
    factors = torch.tensor([[1.5, 0.5, 1.0]]).double().expand(4, 3)
    nothing = torch.zeros(4, dtype=torch.bool)
    ours = jitter(x, compose(factors, torch.zeros(4).double(), torch.arange(4).expand(4, 4), nothing), clamp=False)
    bright = x * 1.5
    mean = bright.mean((2, 3), keepdim=True)
    torch.testing.assert_close(ours, 0.5 * bright + 0.5 * mean)


def test_hue_without_hsv_is_hue_in_hsv_for_every_angle_and_every_order_of_the_channels():
    shades = torch.tensor(list(itertools.product([0.0, 0.3, 0.6, 0.601, 1.0], repeat=3))).double()
    for low, high in ((0, 1), (-3, 5)):  # measured colours have no range
        x = (low + (high - low) * shades).T.reshape(1, 3, 5, 25).expand(97, -1, -1, -1)
        turns = torch.linspace(-0.5, 0.5, 97).double()
        ours = rotate(x.float(), turns.float(), clamp=False).double()
        torch.testing.assert_close(ours, rotate_in_hsv(x, turns), atol=2e-6 * (high - low), rtol=0)


def test_the_mean_colour_after_a_rotation_is_that_of_the_rotated_image():
    x, turns = images(), torch.linspace(-0.5, 0.5, 8)
    one, nothing, half = torch.ones(8), torch.zeros(8), torch.full((8,), 0.5)
    contrast = Recolor(half, nothing, half, None)
    ours = jitter(x, Jitter(Recolor(one, nothing, nothing, None), turns, contrast))
    turned = rotate_in_hsv(x, turns)
    luma = to_space(turned, "gray").mean((2, 3), keepdim=True)
    torch.testing.assert_close(ours, 0.5 * turned + 0.5 * luma, atol=1e-6, rtol=0)


def test_a_compiler_takes_the_jitter_whole():
    x, turns = images(), torch.linspace(-0.5, 0.5, 8)
    drawn = compose(torch.rand(8, 3).double(), turns.double(), torch.arange(4).expand(8, 4), turns > 0)
    steps = plan_jitter(drawn, 3)
    compiled = torch.compile(apply_jitter, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, steps), apply_jitter(x, steps))
