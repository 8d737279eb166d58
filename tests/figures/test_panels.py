"""How signals and vectors are drawn."""

import pytest
import torch
from matplotlib.figure import Figure

from mvssl.figures.panels import draw_as_panel, grid_width


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


@pytest.mark.parametrize(("d", "columns"), [(240, 15), (784, 28), (64, 8), (76, 9), (7, 3)])
def test_vectors_are_drawn_in_rows_like_a_flattened_image(d, columns):
    assert grid_width(d) == columns
