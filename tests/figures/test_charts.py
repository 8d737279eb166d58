"""Charts and the information plane: limits, points, and SVG that fits a page."""

import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from mvssl.figures import charts
from mvssl.figures.charts import Chart, Line, Plane, chart_svg, draw_chart, draw_plane, plane_svg, points_svg
from mvssl.runs.metric_series import Series


def line(*values: float, label: str = "training", **options) -> Line:
    return Line(label, Series(list(range(len(values))), list(values)), **options)


def drawn(chart: Chart):
    axes = Figure().subplots()
    draw_chart(axes, chart)
    return axes


def test_a_line_has_its_steps_and_values():
    axes = drawn(Chart("loss", [line(3.0, 2.0, 1.0), line(4.0, 5.0, label="held out")]))
    assert [one.get_xydata().tolist() for one in axes.get_lines()] == [[[0, 3], [1, 2], [2, 1]], [[0, 4], [1, 5]]]
    low, high = axes.get_ylim()
    assert low <= 1
    assert high >= 5


def test_one_extreme_value_does_not_stretch_the_axis():
    low, high = charts.robust_limits([*range(100), 1e9])
    assert low == 0
    assert high < 300
    assert charts.robust_limits([3.0]) == (3.0, 3.0)
    assert charts.robust_limits([2.0] * 50 + [2.0 + 1e-12]) == (2.0, 2.0 + 1e-12)
    assert drawn(Chart("loss", [line(*range(100), 1e9)])).get_ylim()[1] < 400


@pytest.mark.parametrize("values", [[0.0], [5.0, 5.0], [-1e299, 1e299], [1e-300, 2e-300], [2.0, 2.0 + 1e-15]])
def test_any_finite_values_can_be_drawn(values):
    for log in (False, True):
        assert "<path" in chart_svg(Chart("x", [line(*values)], log=log))
    assert "<path" in chart_svg(Chart("x", [Line("x", Series([2**63 - 1], values[:1]))]))


def test_a_wide_positive_range_gets_a_logarithmic_axis():
    assert drawn(Chart("beta", [line(1e-3, 1.0)], log=True)).get_yscale() == "log"
    assert drawn(Chart("beta", [line(1.0, 2.0)], log=True)).get_yscale() == "linear"
    assert drawn(Chart("beta", [line(0.0, 1.0)], log=True)).get_yscale() == "linear"


def test_values_that_differ_by_rounding_are_a_flat_line():
    low, high = drawn(Chart("beta", [line(0.001, 0.001 + 1e-11)])).get_ylim()
    assert (low, high) == pytest.approx((0.0005, 0.0015), abs=1e-6)


def test_a_floor_is_inside_the_axis():
    assert drawn(Chart("pace", [line(100.0, 101.0)], floor=0.0)).get_ylim()[0] == 0


def test_long_series_are_thinned_to_means_in_order():
    values = [float(k % 7) for k in range(1000)]
    (thin,) = drawn(Chart("loss", [line(*values)])).get_lines()
    steps, means = thin.get_data()
    assert len(steps) == charts.MAX_POINTS
    assert (np.diff(steps) > 0).all()
    assert np.mean(means) == pytest.approx(np.mean(values), abs=0.02)


def test_the_plane_has_a_point_for_each_check_and_beta_at_its_ends():
    axes = Figure().subplots()
    draw_plane(axes, Plane("", [0, 50, 100], [3.0, 2.5, 2.0], [5.0, 2.6, 2.1], [0.5, 1.0, 1.5], {0: 0.001, 100: 0.1}))
    assert axes.collections[-1].get_offsets().tolist() == [[3.0, 0.5], [2.5, 1.0], [2.0, 1.5]]
    assert [text.get_text() for text in axes.texts] == ["step 0, beta 0.001", "step 100, beta 0.1"]


def test_svg_is_equal_for_equal_input_and_has_the_page_colours():
    chart = Chart("loss", [line(3.0, 1.0, colour=2)])
    svg = chart_svg(chart)
    assert svg == chart_svg(chart)
    assert "var(--k2)" in svg
    assert not re.search(r"<style|<metadata|font-family|https?://|#[0-9a-f]{6}", svg)
    assert set(re.findall(r'id="([^"]*)"', svg)).isdisjoint(
        re.findall(r'id="([^"]*)"', chart_svg(chart._replace(unit="nats")))
    )
    assert "0.0005" in chart_svg(Chart("lr", [line(0.0, 0.0005, 0.001)]))
    assert "var(--k0)" in plane_svg(Plane("", [0], [1.0], [1.0], [1.0], {}))


def test_points_are_one_path_for_each_group():
    svg = points_svg([(np.array([[0.5, 0.5]]), None), (np.array([[0.0, 0.0], [1.0, 1.0]]), 3)])
    gray, coloured = re.findall(r'<path d="([^"]*)"[^>]*style="[^"]*stroke: var\(--(?:soft|k3)\)', svg)
    assert gray.count("M") == 1
    (x0, y0), (x1, y1) = (tuple(map(float, place.split()[:2])) for place in coloured.split("M")[1:])
    assert x1 > x0
    assert y1 < y0  # y goes up


def test_a_thousand_points_take_few_bytes():
    assert len(points_svg([(np.random.default_rng(0).random((1000, 2)), 0)])) < 50_000
