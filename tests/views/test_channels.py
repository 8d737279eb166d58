"""Images of many bands: chosen by name, measured apart, with holes, and known to whoever loads the backbone."""

import json

import numpy as np
import pytest
import torch
import webdataset
from small_features import SampleList
from torch.testing import assert_close

from mvssl import recipe, train
from mvssl.encoders import Encoder
from mvssl.errors import RecipeError
from mvssl.exporting.exporting import export
from mvssl.model import build_model
from mvssl.random import Draws
from mvssl.recipe import ViewConfig, parse_recipe
from mvssl.runs.load import load_run
from mvssl.views import ImageView, SignalView, build_views, resolve_statistics
from mvssl.views.channels import kept_band_names, kept_channels

SENTINEL = ["B01", "B02", "B03", "B04", "B08", "B11"]
PLAIN = {"normalize": "none"}


def scenes(n=4, c=6, side=16, seed=0):
    return 3000 * torch.rand(n, c, side, side, generator=torch.Generator().manual_seed(seed)) + 100


def draws(n=4):
    return Draws(0, torch.arange(n), scope="view/x")


def test_bands_are_chosen_by_name_in_the_order_given():
    x = scenes()
    for chosen, numbers in (
        (["B08", "B04", "B03"], [4, 3, 2]),
        ("B11", [5]),
        (None, [0, 1, 2, 3, 4, 5]),
        ([5, 0], [5, 0]),
    ):
        view = ImageView((6, 16, 16), bands=SENTINEL, channels=chosen, **PLAIN)
        assert torch.equal(view(x, None), x[:, numbers])
        assert view.bands == tuple(SENTINEL[k] for k in numbers)
        assert kept_band_names({"bands": SENTINEL, "channels": chosen}) == list(view.bands)
    signal = SignalView((6, 50), bands=["ax", "ay", "az", "gx", "gy", "gz"], channels=["gz", "ax"], **PLAIN)
    assert (signal.kept, signal.bands) == ([5, 0], ("gz", "ax"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": SENTINEL[:5]}, r"^bands: .*B01, B02, B03, B04, B08"),
        ({"bands": [*SENTINEL[:5], "B01"]}, "^bands: "),
        ({"bands": SENTINEL, "channels": ["B8"]}, "^channels: .*'B8'.*'B08'"),
        ({"bands": SENTINEL, "channels": "nir"}, "^channels: .*'nir'"),
        ({"bands": SENTINEL, "channels": ["B01", "B01"]}, "^channels: "),
        ({"channels": ["B01"]}, "^channels: 'B01'"),
        ({"channels": "B01"}, "^channels: .*'B01'.* bands: "),
    ],
)
def test_names_that_do_not_fit_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        ImageView((6, 16, 16), **PLAIN, **options)
    with pytest.raises(RecipeError, match=r"^bands: color: lab"):
        ImageView((3, 16, 16), bands=["r", "g", "b"], color="lab")
    with pytest.raises(RecipeError, match=r"^nodata: color: gray"):
        ImageView((3, 16, 16), nodata=0, color="gray")


def test_colour_jitter_sees_the_bands_that_are_kept():
    x = scenes()
    three = ImageView((6, 16, 16), bands=SENTINEL, channels=["B04", "B03", "B02"], jitter=(0.2, 0.2, 0.4, 0.1), **PLAIN)
    alone = ImageView((3, 16, 16), jitter=(0.2, 0.2, 0.4, 0.1), **PLAIN)
    assert_close(three(x, draws()), alone(x[:, [3, 2, 1]], draws()))
    six = ImageView((6, 16, 16), jitter=(0.5, 0.5, 0, 0), **PLAIN)(x, draws())
    for band in range(6):  # brightness and contrast are the same line a x + b mean for every band of a sample
        slope = (six[:, band] - six[:, band].mean((1, 2), keepdim=True)) / (x[:, band] - x[:, band].mean((1, 2), True))
        assert_close(slope, slope[:, :1, :1].expand_as(slope), rtol=1e-3, atol=1e-3)


def test_jitter_of_measured_colours_has_no_range_to_be_cut_to():
    x = 0.3 + 0.4 * torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    view = ImageView((3, 12, 12), jitter=(0.2, 0.2, 0.2, 0.2), **PLAIN)
    assert_close(view(5000 * x, draws(8)) / 5000, view(x, draws(8)), atol=1e-5, rtol=0)
    bytes_ = (255 * x).round().to(torch.uint8)
    assert_close(view(bytes_, draws(8)), view(bytes_ / 255, draws(8)))  # nothing is cut off here
    with pytest.raises(RecipeError, match=r"solarize_p: .* holds floats"):
        ImageView((3, 12, 12), solarize_p=0.5, **PLAIN)(x, draws(8))


def test_noise_and_lost_bands_are_those_of_signals():
    x = scenes(400)
    numbers = {"normalize": {"mean": [1600.0], "std": [870.0]}}
    clean, noisy = (ImageView((6, 16, 16), noise=noise, **numbers)(x, draws(400)) for noise in (0.0, 0.2))
    assert (noisy - clean).std().item() == pytest.approx(0.2, rel=0.02)
    zero = (ImageView((6, 16, 16), drop=0.3, **numbers)(x, draws(400)) == 0).flatten(2)
    assert torch.equal(zero.all(2), zero.any(2))
    assert zero.all(2).double().mean().item() == pytest.approx(0.3, abs=0.03)
    assert not zero.all(2).all(1).any()


def test_pixels_without_data_are_zero_once_normalised_and_touch_no_other():
    x = scenes()
    holed = x.clone()
    holed[:, :, 4:8, 4:8] = 0
    holed[:, 2, 12, :] = 0
    numbers = {"normalize": {"mean": [1600.0], "std": [870.0]}}
    view = ImageView((6, 16, 16), nodata=0, **numbers)
    seen, plain = view(holed, None), ImageView((6, 16, 16), **numbers)(x, None)
    assert_close(seen, torch.where(holed == 0, 0.0, plain))
    small = ImageView((6, 16, 16), nodata=0, size=8, **numbers)
    full = torch.full((1, 6, 16, 16), 2000.0)
    full[:, :, :, 8:] = 0
    assert_close(small(full, None)[..., :4], torch.full((1, 6, 8, 4), 400 / 870))  # no dark rim at the hole
    assert (small(full, None)[..., 4:] == 0).all()
    for options in ({"interpolation": "nearest"}, {"jitter": (0.5, 0.5, 0, 0)}, {"crop": (0.3, 1.0), "flip": 0.5}):
        moved = ImageView((6, 16, 16), nodata=0, **options, **numbers)(holed, draws())
        assert moved.isfinite().all()
        assert moved.abs().max() < 6
        assert (moved == 0).flatten(1).any(1).all()


def test_nodata_of_bytes_is_in_stored_units_and_outside_of_contrast():
    x = torch.full((2, 1, 8, 8), 200, dtype=torch.uint8)
    x[:, :, :, :4] = 255
    view = ImageView((1, 8, 8), nodata=255, jitter=(0, 0.9, 0, 0), **PLAIN)
    assert_close(view(x, draws(2))[..., 4:], torch.full((2, 1, 8, 4), 200 / 255))
    assert (view(x, draws(2))[..., :4] == 0).all()


def test_floats_are_measured_by_default_for_each_band_without_nodata():
    x = scenes(20) * torch.arange(1, 7)[:, None, None]
    x[:, :, :3] = 0
    source = SampleList({"s2": a.numpy(), "rgb": np.zeros((3, 4, 4), np.uint8)} for a in x)
    tables = {"s2": {"from": "s2", "augment": "crop_flip", "nodata": 0}, "rgb": {"from": "rgb", "augment": "crop_flip"}}
    views = {name: ViewConfig.model_validate(table) for name, table in tables.items()}
    resolved = resolve_statistics(views, {"s2": (6, 16, 16), "rgb": (3, 4, 4)}, source)
    measured = resolved["s2"].options["normalize"]
    kept = x[:, :, 3:].transpose(0, 1).flatten(1)
    assert measured["mean"] == pytest.approx(kept.mean(1).tolist(), rel=1e-4)
    assert measured["std"] == pytest.approx(kept.std(1, correction=0).tolist(), rel=1e-4)
    assert "normalize" not in resolved["rgb"].options  # bytes keep the colour space's own
    named = views["s2"].model_copy(update={"normalize": "half"})
    assert resolve_statistics({"s2": named}, {"s2": (6, 16, 16)}, source)["s2"].options["normalize"] == "half"


def tables(root, out, channels, **encoder):
    view = {"from": "s2", "count": 2, "augment": "crop_flip", "bands": SENTINEL, "channels": channels}
    columns = {"s2": {"field": "s2.npy"}}
    return {
        "data": {"root": str(root), "train": "*.tar", "columns": columns, "batch_size": 4, "workers": 0},
        "views": {"s2": view},
        "encoder": {"name": "resnet10_small", "options": {"channels": [4, 4, 4, 4]}, **encoder},
        "objective": {"name": "cmc", "embed": 4},
        "train": {"steps": 1, "out": str(out), "trackers": []},
    }  # fmt: skip


@pytest.fixture(scope="module")
def satellite(tmp_path_factory):
    """A run on sixteen-bit scenes, and its export."""
    root = tmp_path_factory.mktemp("satellite")
    with webdataset.TarWriter(str(root / "000.tar")) as writer:
        for k, scene in enumerate(scenes(8)):
            writer.write({"__key__": f"{k:04d}", "s2.npy": scene.numpy().astype(np.uint16)})
    train(parse_recipe(tables(root, root / "run", ["B04", "B03", "B08"])))
    export(load_run(root / "run"), root / "backbone")
    return root


def test_names_travel_with_the_run_and_the_export(satellite):
    run = load_run(satellite / "run")
    assert run.views.view("s2").bands == ("B04", "B03", "B08")
    assert len(run.recipe.views["s2"].options["normalize"]["mean"]) == 3
    config = json.loads((satellite / "backbone" / "config.json").read_text())
    assert config["mvssl"]["bands"] == {"s2": ["B04", "B03", "B08"]}
    assert config["pretrained_cfg"]["input_size"] == [3, 16, 16]
    assert config["pretrained_cfg"]["mean"][0] == pytest.approx(1600, rel=0.1)
    assert "Channels, in the recipe's order: B04, B03, B08." in (satellite / "backbone" / "README.md").read_text()


@pytest.mark.parametrize("source", ["run", "backbone", "run/checkpoints/step-00000001"])
def test_weights_of_other_bands_are_refused_with_both_lists(satellite, source):
    def build(channels):
        table = tables(satellite, satellite / "next", channels, init_from=str(satellite / source))
        views = {"s2_0": (3, 16, 16), "s2_1": (3, 16, 16)}
        return build_model(parse_recipe(table), views)

    start = build(["B04", "B03", "B08"]).state_dict()
    assert_close(
        start["encoders.s2.model.conv1.weight"], load_run(satellite / "run").model.encoders["s2"].model.conv1.weight
    )
    for other in (["B08", "B03", "B04"], ["B04", "B03", "B02"]):
        message = rf"\[B04, B03, B08\].* views.s2 has \[{', '.join(other)}\]"
        with pytest.raises(RecipeError, match=message):
            build(other)


def test_a_run_is_not_continued_with_other_bands(satellite):
    with pytest.raises(RecipeError, match=r"views.s2.channels: \['B04', 'B03', 'B08'\] -> \['B04', 'B03', 'B02'\]"):
        train(parse_recipe(tables(satellite, satellite / "run", ["B04", "B03", "B02"])))


def test_weights_or_views_without_names_are_taken_as_they_are(satellite):
    table = recipe.EncoderConfig(
        name="resnet10_small",
        options={"channels": [4] * 4},
        init_from=str(satellite / "backbone" / "model.safetensors"),
    )
    Encoder(table, (3, 16, 16), bands={"s2": ["B01", "B02", "B03"]})
    folder = table.model_copy(update={"init_from": str(satellite / "backbone")})
    Encoder(folder, (3, 16, 16), bands={"s2": []})
    Encoder(folder, (3, 16, 16))


def test_a_single_band_needs_no_dimension_of_its_own():
    x = scenes(c=1)
    view = ImageView((16, 16), size=8, **PLAIN)
    assert view.shape == (1, 8, 8)
    assert torch.equal(view(x[:, 0], None), ImageView((1, 16, 16), size=8, **PLAIN)(x, None))


def test_resizing_a_column_with_nodata_is_reported():
    table = tables("r", "o", None)
    table["views"]["s2"]["nodata"] = 0
    parse_recipe(table)
    table["data"]["columns"]["s2"]["size"] = 8
    with pytest.raises(RecipeError, match=r"views.s2.nodata"):
        parse_recipe(table)


def test_a_view_set_builds_views_of_many_bands():
    assert kept_channels(4, None, None) == ([0, 1, 2, 3], ())
    views = build_views(
        {"x": ViewConfig.model_validate({"from": "s2", "bands": SENTINEL, **PLAIN})}, {"s2": (6, 16, 16)}
    )
    assert views.shapes == {"x": (6, 16, 16)}
