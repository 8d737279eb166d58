"""Geometry against torchvision with the same parameters, and the draws against their definitions."""

import math

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from torch.nn import functional as F

from mvssl.errors import RecipeError
from mvssl.random import Draws
from mvssl.views import ImageView
from mvssl.views.images.geometry import Affine, ImageGeometry, Placement
from mvssl.views.images.image_resampling import apply_placement

WARP = (("degrees", 1), ("move", 2), ("scale", 1), ("shear", 1))  # names of draws, and how many numbers


def images(n=6, c=3, h=40, w=56):
    return torch.rand(n, c, h, w, generator=torch.Generator().manual_seed(0))


def drawn(n=6, **options):
    inside, outside = options.pop("inside", (40, 56)), options.pop("outside", (24, 24))
    return ImageGeometry(inside, outside, **options).draw(Draws(3, torch.arange(n)))


def boxes(placement, h, w):
    """(top, left, height, width) of each sample in pixels."""
    box = (placement.box * torch.tensor([h, w])[:, None]).round().int()
    return [(top, left, tall, wide) for (top, tall), (left, wide) in box.tolist()]


@pytest.mark.parametrize("outside", [(24, 24), (40, 56), (64, 80), (7, 50)])
def test_crop_flip_and_scale_are_torchvisions_antialiased_resized_crop(outside):
    x, placement = images(), drawn(crop=(0.1, 1.0), flip=0.5, outside=outside)
    assert 0 < placement.flip.sum() < 6
    for image, box, flip, ours in zip(
        x, boxes(placement, 40, 56), placement.flip, apply_placement(x, placement, outside, "bilinear"), strict=True
    ):
        theirs = tv.resized_crop(image, *box, size=list(outside), antialias=True)
        theirs = tv.horizontal_flip(theirs) if flip else theirs
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_nearest_picks_pixels_of_the_crop_and_invents_no_value():
    x = torch.randint(0, 9, (6, 1, 40, 56), generator=torch.Generator().manual_seed(0)).float()
    placement = drawn(crop=(0.1, 1.0))
    for image, (top, left, tall, wide), ours in zip(
        x, boxes(placement, 40, 56), apply_placement(x, placement, (24, 24), "nearest"), strict=True
    ):
        cut = image[None, :, top : top + tall, left : left + wide]
        torch.testing.assert_close(ours[None], F.interpolate(cut, size=(24, 24), mode="nearest-exact"))


def test_an_image_that_nothing_happens_to_is_returned_as_it_is():
    x = images()
    assert apply_placement(x, drawn(outside=(40, 56)), (40, 56), "bilinear") is x


def test_translation_is_a_crop_of_the_reflected_image():
    x, placement = images(h=32, w=32), drawn(inside=(32, 32), outside=(32, 32), translate=4, flip=0.5)
    ours = apply_placement(x, placement, (32, 32), "bilinear")
    for k in range(6):
        down, right = (placement.shift[k] * 32).round().int().tolist()
        upright = x[k].flip(-1) if placement.flip[k] else x[k]
        padded = F.pad(upright[None], (4, 4, 4, 4), mode="reflect")[0]
        expected = padded[:, 4 + down : 36 + down, 4 + right : 36 + right]
        torch.testing.assert_close(ours[k], expected, atol=1e-6, rtol=0)


def test_translations_cover_the_range_and_happen_as_often_as_asked():
    shift = drawn(20_000, outside=(32, 32), translate=4, translate_p=0.8).shift * 32
    assert shift.unique().tolist() == list(range(-4, 5))
    assert (shift != 0).any(1).double().mean() == pytest.approx(0.8 * (1 - 1 / 81), abs=0.015)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_affine_warp_is_torchvisions(interpolation):
    x = images(8)
    placement = drawn(8, outside=(40, 56), affine=Affine(degrees=40, translate=0.2, scale=(1.0, 1.4), shear=20))
    ours = apply_placement(x, placement, (40, 56), interpolation)
    for image, (degrees, down, right, scale, shear), result in zip(x, placement.warp.tolist(), ours, strict=True):
        theirs = tv.affine(
            image,
            angle=degrees,
            translate=[round(right * 56), round(down * 40)],
            scale=scale,
            shear=[shear, 0.0],
            interpolation=tv.InterpolationMode(interpolation),
        )
        if interpolation == "bilinear":
            torch.testing.assert_close(result, theirs, atol=1e-4, rtol=0)
        else:  # a pixel's centre that falls between two may go either way in float32
            assert (result != theirs).float().mean() < 0.002


def test_a_warp_that_shrinks_does_not_alias():
    stripes = torch.arange(40) % 2 * torch.ones(1, 1, 40, 40)
    third = Placement(*Placement.full(1)[:3], warp=torch.tensor([[0.0, 0.0, 0.0, 1 / 3, 0.0]]).double())
    middle = apply_placement(stripes.float(), third, (40, 40), "bilinear")[:, :, 15:25, 15:25]
    torch.testing.assert_close(middle, torch.full_like(middle, 0.5), atol=0.06, rtol=0)


def test_affine_then_crop_is_the_composition():
    x = images()
    placement = drawn(crop=(0.3, 0.9), flip=0.5, affine=Affine(degrees=20, shear=10))
    whole = Placement.full(6)._replace(warp=placement.warp)
    turned = apply_placement(x, whole, (40, 56), "bilinear")
    torch.testing.assert_close(
        apply_placement(x, placement, (24, 24), "bilinear"),
        apply_placement(turned, placement._replace(warp=None), (24, 24), "bilinear"),
    )


@pytest.mark.parametrize("inside", [(32, 32), (341, 256), (10, 100)])
@pytest.mark.parametrize(("crop", "ratio"), [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.9, 1.0), (0.3, 3.0))])
def test_a_crop_is_the_first_of_ten_attempts_that_fits(inside, crop, ratio):
    draws, (height, width) = Draws(3, torch.arange(2000)), inside
    share, shape, place = (draws.uniform(name, k) for name, k in (("area", 10), ("aspect", 10), ("place", 2)))
    central = min(max(width / height, ratio[0]), ratio[1])
    for row, box in enumerate(drawn(2000, inside=inside, crop=crop, ratio=ratio).box.tolist()):
        for attempt in range(10):
            area = height * width * (crop[0] + (crop[1] - crop[0]) * share[row, attempt].item())
            low, high = math.log(ratio[0]), math.log(ratio[1])
            aspect = math.exp(low + (high - low) * shape[row, attempt].item())
            tall, wide = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
            if 0 < tall <= height and 0 < wide <= width:
                free = height - tall, width - wide
                start = [math.floor(place[row, k].item() * (free[k] + 1)) for k in range(2)]
                break
        else:
            tall, wide = round(min(height, width / central)), round(min(width, height * central))
            start = [round((height - tall) / 2), round((width - wide) / 2)]
        assert box == [[start[0] / height, tall / height], [start[1] / width, wide / width]]


def test_flips_shifts_and_warps_are_plain_functions_of_their_draws():
    draws, affine = Draws(3, torch.arange(500)), Affine(degrees=15, translate=0.1, scale=(0.9, 1.1), shear=15)
    placement = drawn(500, flip=0.4, translate=4, translate_p=0.8, affine=affine)
    assert torch.equal(placement.flip, (draws.uniform("flip", 1)[:, 0] < 0.4).double())
    moved = (draws.integers("translate", 9, 2) - 4) * (draws.uniform("translate_p", 1) < 0.8)
    assert torch.equal(placement.shift, moved / torch.tensor([24, 24]).double())
    degrees, move, scale, shear = (draws.uniform(*drawn) for drawn in WARP)
    size = torch.tensor([40, 56]).double()
    pixels = (0.1 * size * (2 * move - 1)).round() / size
    expected = torch.cat([15 * (2 * degrees - 1), pixels, 0.9 + (1.1 - 0.9) * scale, 15 * (2 * shear - 1)], 1)
    assert torch.equal(placement.warp, expected)


def test_a_placement_says_whether_it_changes_or_shrinks_an_image():
    assert drawn().whole
    assert not any(drawn(**options).whole for options in ({"crop": (0.5, 1.0)}, {"flip": 0.5}, {"translate": 1}))
    for scale, shrinks in (((0.5, 0.9), True), ((1.0, 1.2), False)):
        placement = drawn(affine=Affine(scale=scale))
        assert placement.whole
        assert placement.shrinks is shrinks


def test_crops_have_the_areas_and_ratios_asked_for():
    placement = drawn(20_000, inside=(1000, 1000), crop=(0.2, 0.4), ratio=(0.5, 2.0))
    tall, wide = placement.box[:, :, 1].unbind(1)
    area, ratio = tall * wide, wide / tall
    assert area.min() > 0.199
    assert area.max() < 0.401
    assert ratio.min() > 0.497
    assert ratio.max() < 2.012
    assert ratio.log().mean().abs() < 0.02  # log-uniform: as often wide as tall
    assert ratio.log().std() == pytest.approx(2 * math.log(2) / math.sqrt(12), rel=0.05)
    assert (placement.box[:, :, 0] + placement.box[:, :, 1]).max() <= 1
    starts = placement.box[:, 0, 0] / (1 - tall)
    assert starts.mean() == pytest.approx(0.5, abs=0.01)


def test_an_image_that_no_crop_fits_is_cut_in_the_middle():
    placement = drawn(inside=(10, 100), crop=(1.0, 1.0), ratio=(1.0, 1.0))
    assert boxes(placement, 10, 100) == [(0, 45, 10, 10)] * 6


def test_one_placement_shows_the_same_scene_at_every_resolution():
    ramp = (torch.arange(64) + 0.5) / 64
    fine = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64)])[None].repeat(6, 1, 1, 1)
    coarse = F.avg_pool2d(fine, 2)
    placement = drawn(inside=(64, 64), crop=(0.3, 0.8), flip=0.5)
    a = apply_placement(fine, placement, (16, 16), "bilinear")
    b = apply_placement(coarse, placement, (16, 16), "bilinear")
    inner = (..., slice(2, -2), slice(2, -2))
    assert (a - b)[inner].abs().max() < 0.005


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": (0.5, 0.2)}, "crop"),
        ({"crop": (0.0, 1.0)}, "crop"),
        ({"ratio": (0.0, 1.0)}, "ratio"),
        ({"translate": 32}, "translate"),
        ({"flip": 1.5}, "flip"),
        ({"affine": Affine(scale=(0.0, 1.0))}, "scale"),
    ],
)
def test_ranges_that_make_no_sense_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        ImageView((3, 32, 32), **options)
