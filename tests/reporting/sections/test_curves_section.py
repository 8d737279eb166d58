"""Which charts a run's own metrics give."""

from mvssl.reporting.sections.curves import MAX_LINES, build_charts, draw_first_lines
from mvssl.runs.metric_series import build_series


def test_metrics_of_one_quantity_share_a_chart_after_the_known_ones():
    keys = ["skl/a-b", "skl/a-c", "loss", "cmc_0/loss", "cmc_0/jsd/a-b", "bound/a-b", "val/skl/a-b", "prior_encoder"]
    metrics = build_series([{"step": 1, **dict.fromkeys([*keys, "val/knn/a", "val/loss"], 0.5)}])
    charts = list(build_charts(metrics))
    assert {chart.title: [line.label for line in chart.lines] for chart in charts} == {
        "Loss": ["training", "held out"],
        "skl": ["a-b", "a-b, held out", "a-c"],
        "cmc_0/loss": ["training"],
        "cmc_0/jsd": ["a-b"],
        "prior_encoder": ["training"],
        "kNN, held out": ["a"],
    }
    assert charts[0].title == "Loss"


def test_a_chart_has_few_lines_and_counts_the_others():
    keys = [f"skl/{name}" for name in "abcdefghij"]
    (chart,) = build_charts(build_series([{"step": 1, **dict.fromkeys(keys, 0.5)}]))
    drawing = draw_first_lines(chart)
    assert len(drawing.legend) == MAX_LINES
    assert str(len(keys) - MAX_LINES) in drawing.note
