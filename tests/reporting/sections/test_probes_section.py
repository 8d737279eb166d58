"""Tables of records on the page."""

import json

from report_reading import read


def test_records_of_another_protocol_are_in_another_table(run):
    records = json.loads((run / "evaluation.json").read_text())
    other = [{**r, "protocol": {**r["protocol"], "seed": 9}} for r in records]
    (run / "evaluation.json").write_text(json.dumps([*records, *other, {"probe": "knn", "value": 1}, "nonsense"]))
    page = read(run, samples=0)
    assert page.all("class").count("probe") == 2
    assert "seed: 0 -> 9" in page.text
    value = next(r["value"] for r in records if r["encoder"] == "trained")
    assert f"{100 * value:.1f}" in page.text


def test_a_probe_with_many_rows_is_folded_and_units_are_named(run):
    records = json.loads((run / "evaluation.json").read_text())
    many = [{**r, "probe": "retrieval", "what": f"direction {k}"} for r in records for k in range(20)]
    nats = [{**r, "probe": "information", "metric": "nwj", "unit": "nats", "value": 3.0} for r in records]
    (run / "evaluation.json").write_text(json.dumps([*records, *many, *nats]))
    text = read(run, samples=0).text
    assert "retrieval: 20 rows" in text
    assert "knn, accuracy (%)" in text
    assert "information, nwj (nats)" in text
