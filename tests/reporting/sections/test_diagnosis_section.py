"""The diagnosis on the page."""

import json

from report_reading import read

from mvssl.monitoring.diagnosis import Evidence, FeatureStatistics, diagnose


def test_the_diagnosis_is_shown_with_its_numbers_and_advice(run):
    shape = FeatureStatistics(rank=1.1, spread=0.001, idle=0.0, width=8, samples=40)
    held = {"bound/a-b": 1.95, "ceiling/a-b": 2.0}
    found = diagnose(Evidence(step=6, early=1, held=held, features={"image": shape}))
    (run / "verdict.json").write_text(json.dumps(found.record()))
    page = read(run, samples=0)
    assert "banner ill" in page.all("class")
    assert "! Collapsed , at step 6" in page.text
    for finding in found.findings:
        assert finding.sentence in page.text
        assert f"Try: {finding.advice}" in page.text
        assert f"threshold {finding.threshold:.4g}" in page.text
    well = diagnose(Evidence(step=6, early=1, held={"bound/a-b": 1.0, "ceiling/a-b": 2.0}))
    (run / "verdict.json").write_text(json.dumps(well.record()))
    assert "banner well" in read(run, samples=0).all("class")
