"""Series of metrics: finite values at steps; everything else is left out and reported."""

from mvssl.runs.line_files import read_json_lines
from mvssl.runs.metric_series import build_series


def test_only_finite_numbers_at_integer_steps_are_read(tmp_path):
    file = tmp_path / "lines"
    good = ['{"step": 2, "a": 1}', '{"step": 1, "a": 3}', '{"step": 2, "a": 2, "b": true}', '{"step": 5, "a": 5}', ""]
    odd = ['{"step": true, "a": 9}', f'{{"step": 3, "a": {10**400}}}', '{"step": 4, "a": Infinity}', '{"step": "1"}']
    broken = ["[1]", "\xff", '{"step": 6, "a"']
    file.write_text("\n".join([*good, *odd, *broken]))
    series = build_series(read_json_lines(file, damage := []))
    assert series == {"a": ([1, 2, 5], [3, 2, 5])}
    assert series["a"].last == 5
    assert len(damage) == 1
    assert "lines: line 10, 11, 12" in damage[0]
    assert read_json_lines(tmp_path / "none", damage) == []
