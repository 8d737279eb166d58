"""Files of a run that are damaged or too large are left out and reported."""

from report_reading import append, read

from mvssl.cli.main import main
from mvssl.reporting import report


def test_damage_is_left_out_and_reported_on_page_and_terminal(run, capsys):
    append(
        run,
        "not json",
        {"step": "six", "loss": 1},
        {"step": 7, "loss": "high"},
        '{"step": 8, "loss": NaN}',
        '{"step": 9',
    )
    for name, text in (("verdict.json", '{"verdict": "hea'), ("evaluation.json", "[1, {}]"), ("exit.json", "[]")):
        (run / name).write_text(text)
    lines = len((run / "metrics.jsonl").read_text().splitlines())
    expected = [
        f"metrics.jsonl: line {lines - 4}, {lines}, no JSON object",
        "evaluation.json: 2 of 2 records, which lack what a table needs",
        "verdict.json: damaged, or of another version",
        "exit.json: damaged, or of another version",
    ]
    text = read(run).text
    assert "; ".join(expected) in text
    assert "6 of 6 steps" in text
    main(["report", str(run), "--samples", "0"])
    assert [line for line in capsys.readouterr().out.splitlines() if "left out:" in line] == [
        f"  left out: {damage}" for damage in expected
    ]


def test_a_file_over_the_limit_is_cut_and_reported(run, monkeypatch):
    monkeypatch.setattr("mvssl.runs.line_files.MAX_BYTES", 100)
    assert any(damage.startswith("metrics.jsonl: ") for damage in report(run, samples=0).left_out)
