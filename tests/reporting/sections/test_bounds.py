"""Bounds and the information plane on the page."""

import pytest
from report_reading import append, read


@pytest.mark.parametrize("term", ["", "mib/"])
def test_held_out_values_and_the_plane_are_shown_where_they_exist(run, term):
    for step in (3, 6):
        values = {"val/loss": 2.0 + step, "val/bound/image_0-image_1": 0.5, "val/ceiling/image_0-image_1": 2.0}
        values |= {"val/knn/image": 0.4, "val/rank/image": 3.0, f"{term}beta": 0.1, f"{term}loss": 1.0}
        append(run, {"step": step, **values, f"val/{term}plane/xz": 2.0, f"val/{term}plane/zy": 1.0 + step})
    page = read(run, samples=0)
    assert "plane" in page.sections
    assert "loss 8 at step 6; lowest 5 at step 3" in page.text
    charts = page.all("aria-label")
    beta = f"{term}beta over step" if term else "Beta over step"
    for title in (
        "Loss over step",
        "image_0-image_1 in nats",
        "kNN, held out in accuracy",
        "Information plane",
        beta,
    ):
        assert any(chart.startswith(title) for chart in charts), title
    assert any("step 6, beta 0.1" in word for word in page.words)
