"""Axes, charts and pictures by what they must show."""

import math

import pytest
import torch

from mvssl.reporting import picture, scale
from mvssl.reporting.chart import Line, line_chart
from mvssl.reporting.html import Html, el, join
from mvssl.reporting.scatter import SIDE, Group, apart, scatter


def test_text_is_escaped_and_markup_is_not():
    assert el("p", "a < b", el("b", "&"), title='"') == '<p title="&quot;">a &lt; b<b>&amp;</b></p>'
    assert el("p", Html("<hr>"), None, ["x", "<"]) == "<p><hr>x&lt;</p>"
    assert join(["<", el("br")]) == "&lt;<br>"
    assert el("g", stroke_width=2, hidden=True, id=None) == '<g stroke-width="2" hidden></g>'


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0, 1),
        (0, 782),
        (-3.2, 7.9),
        (1e-5, 5e-4),
        (20, 25),
        (0, 938_000),
        (2.0, 2.1),
        (1e-4, 3e-4),
        (2e-4, 2e-4 + 1e-15),
    ],
)
def test_ticks_are_round_inside_and_a_few(low, high):
    axis = scale.linear(low, high, 0, 100)
    values = [value for value, _ in axis.ticks]
    assert 2 <= len(values) <= 7
    assert axis.low <= low <= high <= axis.high
    assert all(axis.low * (1 - 1e-9) - 1e-12 <= value <= axis.high * (1 + 1e-9) + 1e-12 for value in values)
    step = (values[1] - values[0]) / 10 ** math.floor(math.log10(values[1] - values[0]) + 1e-9)
    assert round(step, 6) in (1, 2, 5)
    assert len({text for _, text in axis.ticks}) == len(values)
    assert axis.place(axis.low) == pytest.approx(0)
    assert axis.place(axis.high) == pytest.approx(100)


def test_an_axis_of_one_value_still_has_a_place_for_it():
    for value in (0.0, 5.0, -1e-9):
        assert 0 < scale.linear(value, value, 0, 100).place(value) < 100


def test_a_log_axis_has_powers_of_ten_at_equal_distances():
    axis = scale.logarithmic(1e-3, 1e3, 0, 6)
    assert [axis.place(10.0**k) for k in range(-3, 4)] == pytest.approx(range(7))
    assert [text for _, text in axis.ticks][:2] == ["0.001", "0.1"]


def test_one_wild_value_does_not_stretch_the_range():
    low, high = scale.bounds([*range(100), 1e9])
    assert low == 0
    assert high < 300
    assert scale.bounds([3.0]) == (3.0, 3.0)
    assert scale.bounds([2.0] * 50 + [2.0 + 1e-12]) == (2.0, 2.0 + 1e-12)


def test_thinning_keeps_the_mean_and_the_order():
    points = [(float(k), float(k % 7)) for k in range(1000)]
    thin = scale.thin(points, 100)
    assert len(thin) == 100
    assert [x for x, _ in thin] == sorted(x for x, _ in thin)
    assert sum(y for _, y in thin) / 100 == pytest.approx(sum(y for _, y in points) / 1000)


@pytest.mark.parametrize(
    ("value", "step", "text"), [(1500, 500, "1.5k"), (0.0, 1, "0"), (2e6, 5e5, "2.0M"), (0.25, 0.05, "0.25")]
)
def test_tick_texts_are_short(value, step, text):
    assert scale.number(value, step) == text


def test_a_chart_tells_its_last_values_and_what_it_cuts_off():
    wild = [(float(k), 1.0) for k in range(50)] + [(50.0, 1e6)]
    drawn = line_chart("loss <1>", [Line("a & b", wild), Line("top", [(0.0, 2.0), (50.0, 2.0)], "dotted")], y="nats")
    assert 'aria-label="loss &lt;1&gt; in nats over step; at the end: a &amp; b 1,000,000; top 2"' in drawn
    assert "1 of 53 points lie outside." in drawn
    assert "a &amp; b</li>" in drawn


def test_a_line_falls_where_its_values_fall():
    drawn = line_chart("loss", [Line("loss", [(0.0, 3.0), (10.0, 1.0)])])
    (x0, y0), (x1, y1) = (
        map(float, p.split()) for p in drawn.split('class="line solid')[0].rpartition('d="M')[2].rstrip('" ').split("L")
    )
    assert x1 > x0
    assert y1 > y0  # down the page


def test_names_of_groups_move_apart_and_stay_inside():
    places = apart([[0, 0], [4, 1], [2, 2], [SIDE, SIDE]], [40, 40, 40, 40])
    for i in range(3):
        for j in range(i):
            assert abs(places[i][1] - places[j][1]) >= 14.5
    assert all(40 <= px <= SIDE - 40 and 0 < py < SIDE for px, py in places)


def test_a_map_names_its_groups_and_leaves_the_rest_gray():
    drawn = scatter("view", [Group("", [(0.5, 0.5)], None), Group("<cat>", [(0.0, 0.0), (1.0, 1.0)], 3)], "note")
    assert "3 samples as points, by &lt;cat&gt;" in drawn
    assert 'class="dots rest"' in drawn
    assert "M10 350h0M350 10h0" in drawn  # y goes up


def test_small_pictures_are_exact_and_large_ones_bounded():
    small = picture.image(torch.rand(3, 8, 8), "small")
    large = picture.image(torch.rand(3, 500, 1000), "large")
    assert "data:image/png" in small
    assert 'width="8" height="8"' in small
    assert "data:image/jpeg" in large
    assert f'width="{picture.LARGEST}" height="{picture.LARGEST // 2}"' in large
    assert len(large) < 40_000


def test_a_signal_has_a_line_per_channel_and_a_vector_a_bar_per_number():
    assert picture.cell(torch.randn(6, 50), "imu").count("<path") == 6
    assert picture.cell(torch.randn(1, 8000), "sound").count("Z") == 1  # a band between its extremes
    assert picture.cell(torch.randn(9), "vector").count("z") == 9
    for kind in (torch.full((3, 4, 4), torch.nan), torch.full((2, 9), torch.nan), torch.zeros(5)):
        assert "nan" not in picture.cell(kind, "empty").replace("nan=", "")


def test_signals_share_a_scale_by_channel_and_long_vectors_become_pictures():
    x = (
        torch.stack([torch.linspace(-1, 1, 100), torch.linspace(0, 1000, 100)])
        * torch.tensor([1.0, 0.5])[:, None, None]
    )
    shown = picture.numbers(x)
    assert torch.allclose(shown[0, 0], shown[0, 1], atol=0.02)  # each channel fills its lane
    assert (shown[1].amax(1) - shown[1].amin(1) < 0.6).all()  # and a calmer sample fills less of it
    assert picture.numbers(torch.rand(3, 64)).shape == (3, 64)
    assert picture.numbers(torch.randn(3, 65)).shape == (3, 3, 8, 9)
    assert picture.numbers(torch.zeros(2, 5)).isfinite().all()


def test_components_are_orthogonal_ordered_and_their_shares_add_up():
    x = torch.randn(200, 5) * torch.tensor([5.0, 3, 2, 1, 0.5])
    found, share = picture.components(x, 3)
    gram = found.T @ found
    assert torch.allclose(gram - gram.diag().diag(), torch.zeros(3, 3), atol=1e-2)
    assert (share.diff() <= 0).all()
    assert share.sum() == pytest.approx(float(found.var(0).sum() / x.var(0).sum()), rel=1e-4)
    assert picture.components(torch.ones(4, 2), 3)[0].abs().max() == 0
