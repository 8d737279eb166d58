"""The views of a recipe: names, shapes, shared geometry, shared flips, and draws that depend on the position alone."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from mvssl import data
from mvssl.errors import RecipeError
from mvssl.random import Draws
from mvssl.recipe import ViewConfig
from mvssl.views import PRESETS, build_views
from mvssl.views.parameters import ParameterDraw

SHAPES = {"rgb": (3, 32, 32), "depth": (1, 16, 16), "bands": (13, 20, 24), "vector": (6,), "digit": (1, 28, 28)}


class Batch(SimpleNamespace):
    pass


def batch(n=8, start=0, columns=None):
    generator = torch.Generator().manual_seed(0)
    made = {
        "rgb": torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8, generator=generator),
        "depth": torch.rand(n, 1, 16, 16, generator=generator),
        "bands": torch.rand(n, 13, 20, 24, generator=generator),
        "vector": torch.randn(n, 6, generator=generator),
        "digit": torch.randint(0, 256, (n, 1, 28, 28), dtype=torch.uint8, generator=generator),
    }
    return Batch(columns=columns or made, position=torch.arange(start, start + n))


def rows(whole, chosen):
    return Batch(columns={k: v[chosen] for k, v in whole.columns.items()}, position=whole.position[chosen])


def view(source, **options) -> ViewConfig:
    return ViewConfig.model_validate({"from": source, **options})


def positions(x: Tensor) -> Tensor:
    """Two channels that hold each pixel's row and column, so that geometry can be read off a view."""
    ramp = (torch.arange(x.shape[-1]) + 0.5) / x.shape[-1]
    grid = torch.stack([ramp[:, None].expand(x.shape[-2:]), ramp.expand(x.shape[-2:])])
    return grid.expand(len(x), 2, *x.shape[-2:])


class Checkerboard:
    """A user's view in one file."""

    def __init__(self, shape: tuple[int, ...], *, strength: float = 0.5):
        self.shape, self.strength = shape, strength

    def __call__(self, x: Tensor, draws: Draws | None) -> Tensor:
        x = x.float() / 255
        if draws is None:
            return x
        return x * (1 - self.strength * draws.uniform("dim", 1).float()[:, :, None, None])


def everything():
    return {
        "a": view("rgb", augment="simclr", count=2),
        "L": view("rgb", augment="cmc", channels="L"),
        "ab": view("rgb", augment="cmc", channels="ab", geometry="L"),
        "depth": view("depth", augment="crop_flip", geometry="L", interpolation="nearest"),
        "bands": view("bands", augment="crop_flip", size=[8, 12], channels=[0, 5], jitter=[0.2, 0.2, 0, 0]),
        "vector": view("vector", name="vector", noise=0.1, drop=0.2, normalize="none"),
        "mib": view("digit", augment="mib"),
    }


def test_views_come_in_recipe_order_with_counted_ones_expanded():
    views = build_views(everything(), SHAPES)
    assert views.names == ["a_0", "a_1", "L", "ab", "depth", "bands", "vector", "mib"]
    seen, clean = views(batch(), seed=0), views.clean(batch())
    assert list(seen) == views.names
    assert list(clean) == ["a", "L", "ab", "depth", "bands", "vector", "mib"]
    assert {name: tuple(x.shape[1:]) for name, x in seen.items()} == views.shapes
    assert all(x.dtype == torch.float32 and x.isfinite().all() for x in (*seen.values(), *clean.values()))
    assert views.shapes["bands"] == (2, 8, 12)
    assert views.shapes["ab"] == (2, 32, 32)
    assert views.source_of("a_1") == views.source_of("a") == "rgb"


def test_a_sample_gets_the_same_draw_in_any_batch():
    views, whole = build_views(everything(), SHAPES), batch()
    expected, chosen = views(whole, seed=3), torch.tensor([5, 2])
    for name, x in views(rows(whole, chosen), seed=3).items():
        torch.testing.assert_close(x, expected[name][chosen], atol=1e-6, rtol=0)


def test_other_seeds_positions_and_draws_of_a_view_differ():
    views, whole = build_views(everything(), SHAPES), batch()
    first = views(whole, seed=0)
    later = views(Batch(columns=whole.columns, position=whole.position + 100), seed=0)
    for other in (views(whole, seed=1), later):
        assert not any(torch.equal(first[name], other[name]) for name in views.names)
    assert not torch.equal(first["a_0"], first["a_1"])


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_and_draws(name):
    source = "digit" if name == "mib" else "rgb"
    views = build_views({"x": view(source, augment=name)}, SHAPES)
    assert views(batch(2), 0)["x"].shape[1:] == views.shapes["x"]


def test_a_views_own_options_override_its_preset():
    views = build_views({"x": view("rgb", augment="amdim", flip=0.0, normalize="none")}, SHAPES)
    assert views.view("x").geometry.flip == 0
    assert views.view("x").geometry.translate == 4
    assert views.view("x").mean.tolist() == [0, 0, 0]


def test_two_sensors_share_crop_and_flip_between_resolutions():
    whole = batch(16)
    columns = {"rgb": positions(whole.columns["rgb"]), "depth": positions(whole.columns["depth"])}
    recipe = {
        "rgb": view("rgb", augment="crop_flip", size=16, normalize="none"),
        "depth": view("depth", augment="crop_flip", size=16, geometry="rgb", normalize="none"),
        "alone": view("depth", augment="crop_flip", size=16, normalize="none"),
    }
    views = build_views(recipe, {"rgb": (2, 32, 32), "depth": (2, 16, 16)})
    seen = views(Batch(columns=columns, position=whole.position), 0)
    centre = (..., slice(4, 12), slice(4, 12))
    torch.testing.assert_close(seen["depth"][centre], seen["rgb"][centre], atol=0.05, rtol=0)
    assert (seen["alone"][centre] - seen["rgb"][centre]).abs().max() > 0.2


def test_each_draw_of_a_counted_view_leads_the_same_draw_of_its_follower():
    recipe = {"a": view("rgb", augment="crop_flip", count=2), "b": view("rgb", geometry="a", count=2)}
    seen = build_views(recipe, SHAPES)(batch(), 0)
    assert torch.equal(seen["a_0"], seen["b_0"])
    assert torch.equal(seen["a_1"], seen["b_1"])
    assert not torch.equal(seen["a_0"], seen["a_1"])


def test_shared_flips_and_nothing_else_are_shared():
    whole = batch(64)
    columns = {"rgb": positions(whole.columns["rgb"])}
    options = {"flip": 0.5, "translate": 4, "normalize": "none"}

    def directions(**more):
        views = build_views({"x": view("rgb", count=2, **options, **more)}, {"rgb": (2, 32, 32)})
        seen = views(Batch(columns=columns, position=whole.position), 0)
        flips = [seen[name][:, 1, 16, 20] < seen[name][:, 1, 16, 12] for name in ("x_0", "x_1")]
        return seen, *flips

    seen, left, right = directions(shared_flip=True)
    assert torch.equal(left, right)
    assert 16 < left.sum() < 48
    assert not torch.equal(seen["x_0"], seen["x_1"])  # the translations are each one's own
    _, left, right = directions()
    assert not torch.equal(left, right)


def test_a_follower_shares_the_geometry_and_nothing_else():
    columns = {"rgb": torch.full((8, 3, 32, 32), 128, dtype=torch.uint8)}
    options = {"jitter": [0.4, 0.4, 0.4, 0.1], "keep": 0.8}
    recipe = {"a": view("rgb", crop=[0.2, 1], **options), "b": view("rgb", geometry="a", **options)}
    recipe |= {"c": view("rgb", geometry="a", **options)}
    seen = build_views(recipe, SHAPES)(Batch(columns=columns, position=torch.arange(8)), 0)
    for one, other in ("ab", "ac", "bc"):
        assert not torch.equal(seen[one] == -1, seen[other] == -1)  # which pixels are dropped
        assert (seen[one].amax((1, 2, 3)) != seen[other].amax((1, 2, 3))).all()  # how bright the rest is


def test_kept_channels_equal_those_of_the_full_colour_space():
    recipe = {"lab": view("rgb", color="lab"), "b": view("rgb", color="lab", channels="b")}
    recipe |= {"ab": view("rgb", color="lab", channels="ab"), "bands": view("bands", channels=[7, 2])}
    recipe |= {"all": view("bands")}
    seen = build_views(recipe, SHAPES).clean(batch())
    assert torch.equal(seen["ab"], seen["lab"][:, 1:])
    assert torch.equal(seen["b"], seen["lab"][:, 2:])
    assert torch.equal(seen["bands"], seen["all"][:, [7, 2]])


def test_bytes_stay_within_their_range_and_floats_have_none():
    recipe = {"bytes": view("rgb", jitter=[0.9, 0.9, 0.9, 0.1], normalize="none")}
    recipe |= {"floats": view("bands", jitter=[0.9, 0.9, 0, 0], normalize="none")}
    seen = build_views(recipe, SHAPES)(batch(), 0)
    assert seen["bytes"].min() == 0
    assert seen["bytes"].max() == 1
    assert seen["floats"].max() > 1.2


def test_amdim_on_cifar_shares_the_flip():
    assert PRESETS["amdim"]["shared_flip"]


def test_pixels_are_kept_as_often_as_asked_and_become_zero_in_all_channels():
    columns = {"rgb": torch.full((32, 3, 32, 32), 255, dtype=torch.uint8)}
    views = build_views({"x": view("rgb", keep=0.8, normalize="none")}, SHAPES)
    x = views(Batch(columns=columns, position=torch.arange(32)), 0)["x"]
    assert x.unique().tolist() == [0, 1]
    assert torch.equal(x[:, 0], x[:, 1])
    assert torch.equal(x[:, 0], x[:, 2])
    assert x.mean().item() == pytest.approx(0.8, abs=0.01)


def test_solarised_and_blurred_rows_are_as_many_as_asked():
    whole = batch(200)
    clean = build_views({"x": view("rgb")}, SHAPES)(whole, 0)["x"]
    for option in ("solarize_p", "blur_p"):
        changed = build_views({"x": view("rgb", **{option: 0.3})}, SHAPES)(whole, 0)["x"] != clean
        assert changed.flatten(1).any(1).double().mean() == pytest.approx(0.3, abs=0.1)


def test_views_do_not_change_the_batch():
    whole = batch()
    before = {name: column.clone() for name, column in whole.columns.items()}
    views = build_views({**everything(), "am": view("rgb", augment="amdim", size=32)}, SHAPES)
    views(whole, 0)
    views.clean(whole)
    assert all(torch.equal(whole.columns[name], before[name]) for name in before)


def whole_batch(columns, position) -> data.Batch:
    return data.Batch(columns, position, position, {}, [])


def test_parameters_that_the_loader_drew_give_the_same_views():
    views, whole = build_views(everything(), SHAPES), batch()
    given = whole_batch(whole.columns, whole.position)
    expected, ahead = views(given, 3), given._replace(drawn=views.draw(whole.position, 3))
    with pytest.MonkeyPatch().context() as patch:
        patch.setattr(ParameterDraw, "__call__", None)  # nothing is drawn again
        seen = views(ahead, 3)
    assert all(torch.equal(seen[name], expected[name]) for name in views.names)


def test_parameters_of_another_seed_or_of_other_samples_are_drawn_again():
    views, whole = build_views(everything(), SHAPES), batch()
    given = whole_batch(whole.columns, whole.position)
    drawn, moved = views.draw(whole.position, 3), whole.position + 1
    for seed, position in ((4, whole.position), (3, moved)):
        seen = views(given._replace(position=position, drawn=drawn), seed)
        expected = views(given._replace(position=position), seed)
        assert all(torch.equal(seen[name], expected[name]) for name in views.names)


def test_a_view_alone_draws_what_it_draws_in_a_set():
    whole = batch()
    views = build_views(everything(), SHAPES)
    seen, draws = views(whole, 3), Draws(3, whole.position, scope="view")
    for name in ("a_0", "a_1", "L", "bands", "vector", "mib"):
        alone = views.view(name)(whole.columns[views.source_of(name)], draws.within(name))
        assert torch.equal(alone, seen[name])
    placement = views.view("L").geometry.draw(draws.within("L"))
    assert torch.equal(views.view("ab")(whole.columns["rgb"], draws.within("ab"), placement), seen["ab"])


def test_autocast_and_torchs_own_generator_leave_views_alone():
    views, whole = build_views(everything(), SHAPES), batch()
    expected = views(whole, 0)
    torch.manual_seed(123)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = views(whole, 0)
    assert all(torch.equal(again[name], expected[name]) for name in views.names)


def test_a_users_class_is_named_by_import_path(monkeypatch):
    monkeypatch.syspath_prepend(__file__.rsplit("/", 1)[0])
    table = view("rgb", name="test_viewset:Checkerboard", strength=0.9)
    views = build_views({"x": table}, SHAPES)
    assert views(batch(), 0)["x"].mean() < views.clean(batch())["x"].mean()
    with pytest.raises(RecipeError, match="strength"):
        build_views({"x": view("rgb", name="test_viewset:Checkerboard", stength=0.9)}, SHAPES)


class Standardised(torch.nn.Module):
    """A torch module that has a buffer with the name of a member of `View`."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.register_buffer("mean", torch.zeros(3))

    def __call__(self, column, draws):
        return column.float()


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"x": view("rgb", name="test_viewset:Standardised")}, r"views.x: Standardised.mean"),
        ({"x": view("rgb", crp=[0.2, 1])}, "views.x.crp.*crop"),
        ({"x": view("rgb", crop="wide")}, "views.x.crop"),
        ({"x": view("rgb", affine={"degree": 3})}, "degrees"),
        ({"x": view("rgb", augment="simcrl")}, "simclr"),
        ({"x": view("rgb", normalize="halv")}, "views.x.normalize"),
        ({"x": view("lidar")}, "views.x.from: no column 'lidar'"),
        ({"x": view("depth", augment="simclr")}, "views.x: saturation, hue, gray_p.*3 channels"),
        ({"x": view("depth", color="lab")}, "lab is made from 3 channels"),
        ({"x": view("bands", normalize="imagenet")}, "3 numbers as mean; it needs 13"),
        ({"x": view("bands", channels=[13])}, "0 to 12"),
        ({"x": view("rgb", color="lab", channels="Db")}, "lab has no 'Db'"),
        ({"x": view("vector")}, r"needs a column \[c, h, w\]"),
        ({"x": view("rgb", name="vector")}, r"needs a column \[d\]"),
        ({"x": view("vector", name="vector", augment="dim")}, "views.x.augment"),
        ({"x": view("rgb", size=0)}, "size"),
        ({"x": view("rgb", size=1_000_000)}, "views.x: size: 1000000; .* 67,108,864"),
        ({"x": view("rgb", blur_p=1.0, blur_sigma=[0.1, 1e9])}, "views.x: blur_sigma: .*0 to 1000"),
        ({"x": view("rgb", geometry="y"), "y": view("rgb", geometry="x")}, "circle"),
        ({"x": view("rgb", geometry="x")}, "circle"),
        ({"x": view("rgb", geometry="y")}, "no view 'y'"),
        ({"x": view("rgb", geometry="y"), "y": view("vector", name="vector", normalize="none")}, "views of one kind"),
        ({"x": view("rgb", geometry="y", flip=0.5), "y": view("rgb")}, "views.x.flip.*'y'"),
        ({"x": view("rgb", geometry="y", count=3), "y": view("rgb", count=2)}, "has 2 draws"),
        ({"x": view("rgb", count=2), "x_0": view("rgb")}, "two views are called 'x_0'"),
        ({"x": view("rgb", normalize="data")}, "resolve_statistics"),
    ],
)
def test_faults_are_refused_with_their_place(recipe, message):
    with pytest.raises(RecipeError, match=message):
        build_views(recipe, SHAPES)
