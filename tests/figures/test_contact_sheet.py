"""The contact sheet: a PNG of every kind of view."""

from typing import NamedTuple

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from mvssl.errors import OutputError
from mvssl.figures.contact_sheet import CELL, draw_contact_sheet
from mvssl.figures.panels import draw_as_panel, grid_width
from mvssl.figures.pixels import find_rgb_bands, is_measured, rgb_pixels
from mvssl.files import write_picture
from mvssl.recipe import ViewConfig
from mvssl.views import ImageView, build_views


class Batch(NamedTuple):
    columns: dict[str, Tensor]
    position: Tensor
    present: dict[str, Tensor] = {}  # noqa: RUF012 never changed


def made():
    columns = {
        "rgb": torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8),
        "depth": torch.rand(3, 1, 8, 8),
        "bands": 3000 * torch.rand(3, 13, 8, 8),
        "vector": torch.randn(3, 6),
        "long": torch.rand(3, 200),
        "imu": torch.randn(3, 9, 50),
        "sound": torch.randn(3, 2000),
    }
    columns["bands"][0, 0, 0, 0] = torch.nan
    tables = {
        "a": {"from": "rgb", "augment": "simclr", "count": 2},
        "L": {"from": "rgb", "augment": "cmc", "channels": "L"},
        "ab": {"from": "rgb", "augment": "cmc", "channels": "ab", "geometry": "L"},
        "depth": {"from": "depth", "flip": 0.5},
        "bands": {"from": "bands", "flip": 0.5, "normalize": {"mean": [1500], "std": [800]}},
        "vector": {"from": "vector", "name": "vector", "normalize": "none"},
        "long": {"from": "long", "name": "vector", "normalize": "none"},
        "imu": {"from": "imu", "name": "signal", "normalize": "none", "crop": [0.5, 1]},
        "sound": {"from": "sound", "name": "logmel", "rate": 8000, "mels": 20, "normalize": "none"},
    }
    views = {name: ViewConfig.model_validate(table) for name, table in tables.items()}
    shapes = {name: tuple(column.shape[1:]) for name, column in columns.items()}
    return build_views(views, shapes), Batch(columns, torch.arange(3))


def test_a_sheet_of_every_kind_of_view_is_a_picture_with_content(tmp_path):
    views, batch = made()
    out = write_picture(draw_contact_sheet(views, batch, draws=2), tmp_path / "sheet.png")
    with Image.open(out) as sheet:
        assert sheet.width > sheet.height > 300
        assert len(sheet.convert("RGB").getcolors(maxcolors=10**6)) > 500


def test_a_sheet_has_a_row_for_every_sample(tmp_path):
    columns = {"x": torch.rand(14, 1, 4, 4)}
    views = build_views({"x": ViewConfig.model_validate({"from": "x", "normalize": "none"})}, {"x": (1, 4, 4)})
    sizes = []
    for rows in (7, 14):
        batch = Batch({name: column[:rows] for name, column in columns.items()}, torch.arange(rows))
        with Image.open(write_picture(draw_contact_sheet(views, batch, draws=1), tmp_path / "sheet.png")) as sheet:
            sizes.append(sheet.height)
    assert sizes[1] - sizes[0] == pytest.approx(7 * CELL * 110, abs=2)


def test_the_error_of_an_unwritable_sheet_names_its_path(tmp_path):
    views, batch = made()
    with pytest.raises(OutputError, match="nowhere"):
        write_picture(draw_contact_sheet(views, batch, draws=1), tmp_path / "nowhere" / "sheet.png")


@pytest.mark.parametrize("color", ["rgb", "lab", "ydbdr"])
def test_a_clean_view_is_shown_as_the_image_it_came_from(color):
    x = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    view = ImageView((3, 8, 8), color=color, normalize={"mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0]})
    torch.testing.assert_close(view.to_rgb(view(x, None)), x / 255, atol=3e-3, rtol=0)


def test_lightness_is_shown_in_gray_and_chroma_at_one_lightness():
    x = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    lightness, chroma = (ImageView((3, 8, 8), color="ydbdr", channels=kept) for kept in ("Y", "DbDr"))
    shown = lightness.to_rgb(lightness(x, None))
    torch.testing.assert_close(shown[:, 0], shown[:, 1], atol=2e-3, rtol=0)
    soft = (128 + (x.float() - 128) / 4).to(torch.uint8)
    luma = (chroma.to_rgb(chroma(soft, None)) * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1)
    torch.testing.assert_close(luma, torch.full_like(luma, 0.6), atol=5e-3, rtol=0)


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


def test_an_absent_row_is_called_so_and_not_drawn(tmp_path):
    tables = {"x": ViewConfig.model_validate({"from": "x", "normalize": "none"})}
    views = build_views(tables, {"x": (1, 4, 4)})
    sheets = []
    for there in (True, False):
        batch = Batch({"x": torch.zeros(2, 1, 4, 4)}, torch.arange(2), {"x": torch.tensor([True, there])})
        with Image.open(write_picture(draw_contact_sheet(views, batch, draws=1), tmp_path / "sheet.png")) as sheet:
            sheets.append(sheet.convert("L").histogram())
    assert sheets[0][255] < sheets[1][255] - 10_000  # what was a dark picture is now white paper


def test_many_wide_views_are_drawn_less_often(tmp_path):
    widths = []
    for count in (1, 6):
        columns = {f"u{k}": torch.randn(2, 3, 20) for k in range(count)}
        tables = {
            name: ViewConfig.model_validate({"from": name, "name": "signal", "normalize": "none"}) for name in columns
        }
        views = build_views(tables, dict.fromkeys(columns, (3, 20)))
        widths.append(draw_contact_sheet(views, Batch(columns, torch.arange(2))).get_figwidth() / (1.8 * CELL))
    assert widths[0] == pytest.approx(1 + 3, abs=0.3)
    assert widths[1] == pytest.approx(6 + 6, abs=0.6)


def test_the_caption_explains_what_is_no_plain_picture():
    views, batch = made()
    batch.columns["depth"][:] = torch.linspace(1, 5, 64).view(1, 1, 8, 8)
    caption = draw_contact_sheet(views, batch, draws=2).get_supxlabel()
    told = dict(line.split(": ", 1) for line in caption.split("\n"))
    assert told["L"] == "lightness, in gray"
    assert told["ab"].startswith("colour without its lightness")
    assert told["bands"].startswith("false colour: red, green, blue are bands 12, 6, 0")
    assert told["imu"].startswith("a lane for each channel")  # for the column as for the view
    assert any(names.startswith("depth column (1 to 5)") for names in told)
    assert not any("rgb" in names or "a_0" in names for names in told)


@pytest.mark.parametrize("names", [[], [f"c{k}" for k in range(9)]])
def test_many_channels_lie_in_lanes_that_are_named(names):
    shown = draw_as_panel("imu\ncolumn", 1000 * torch.arange(9.0)[:, None] + torch.randn(2, 9, 50), names=names)
    axes = Figure().subplots()
    shown.draw(axes, 0, True)
    assert [label.get_text() for label in axes.get_yticklabels()] == (names or [str(k) for k in range(9)])
    lines = [line.get_ydata() for line in axes.lines if len(line.get_ydata()) == 50]
    for k, (line, tick) in enumerate(zip(lines, axes.get_yticks(), strict=True)):
        assert (abs(line - tick) <= 0.55).all(), k


def test_few_channels_share_a_scale_and_a_legend():
    axes = Figure().subplots()
    x = torch.stack([torch.zeros(2, 50), torch.ones(2, 50)], 1)
    draw_as_panel("sound\ncolumn", x).draw(axes, 0, True)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["0", "1"]
    assert [line.get_ydata()[0] for line in axes.lines[:2]] == [0, 1]


def test_sheets_leave_pyplot_alone(tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    views, batch = made()
    write_picture(draw_contact_sheet(views, batch, draws=1), tmp_path / "sheet.png")
    assert plt.get_fignums() == []


@pytest.mark.parametrize(("d", "columns"), [(240, 15), (784, 28), (64, 8), (76, 9), (7, 3)])
def test_vectors_are_drawn_in_rows_like_a_flattened_image(d, columns):
    assert grid_width(d) == columns
