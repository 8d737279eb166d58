"""Comparisons: the ratio is that of the fastest other way, and JSON and table hold every row."""

import json
import time

import pytest

from mvssl.bench.comparison import build_row, compare, finish_comparison, name_largest


def wait(seconds):
    return lambda: time.sleep(seconds)


def test_the_ratio_is_the_time_of_the_fastest_other_way_divided_by_ours():
    row = build_row("crop", {"ours": [1.0, 2.0, 4.0], "slow": [9.0, 9.0, 9.0], "fast": [3.0, 4.0, 20.0]})
    assert (row.beside, row.ratio, row.ratio_spread) == ("fast", 3.0, (2.0, 5.0))
    assert row.seconds == {"ours": 2.0, "slow": 9.0, "fast": 4.0}


def test_a_way_alone_has_a_time_and_no_ratio():
    row = build_row("n = 65,536", {"ours": [1.0, 3.0]})
    assert (row.seconds, row.beside, row.ratio, row.ratio_spread) == ({"ours": 2.0}, None, None, None)


def test_ways_take_turns_and_alternate_their_order():
    order = []
    ways = {name: lambda name=name: (order.append(name), time.sleep(0.002)) for name in ("ours", "other")}
    row = compare("sleep", ways, rounds=3, block=1e-6, clock="wall")
    assert order[4:] == ["ours", "other", "other", "ours", "ours", "other"]  # after two calls of each
    assert row.rounds == 3
    assert all(seconds >= 0.002 for seconds in row.seconds.values())


def test_a_wait_costs_wall_time_and_no_cpu_time():
    (wall,), (cpu,) = (
        compare("sleep", {"ours": wait(0.01)}, rounds=3, block=0.01, clock=clock).seconds.values()
        for clock in ("wall", "cpu")
    )
    assert wall >= 0.01 > cpu


def test_the_result_holds_the_lowest_ratio_and_every_row(tmp_path, capsys):
    rows = [
        build_row("32 pixels", {"ours": [0.1], "other": [0.3]}, samples=64, memory={"ours": 2_000_000}),
        build_row("64 pixels", {"ours": [0.1], "other": [0.2]}, samples=64),
        build_row("alone", {"ours": [0.1]}, samples=64),
    ]
    file = tmp_path / "views.json"
    result = finish_comparison("views", rows, bottleneck="the hue takes 41 %", json_file=file, preset="simclr")
    assert json.loads(file.read_text()) == json.loads(json.dumps(result))
    assert result["ratio"] == 2.0
    assert [row["what"] for row in result["rows"]] == ["32 pixels", "64 pixels", "alone"]
    assert result["preset"] == "simclr"
    assert result["hardware"]["cores"] >= 1
    shown = capsys.readouterr().out
    assert "640" in shown  # samples per second
    assert "3.00 (3.00 to 3.00)" in shown
    assert "the hue takes 41 %" in shown


def test_the_largest_share_is_named():
    assert name_largest({"crop": 1.0, "the hue": 3.0}) == "the hue takes 75%"


@pytest.mark.parametrize("rounds", [1, 4])
def test_every_round_has_one_block_of_each_way(rounds):
    calls = []
    compare("count", {"ours": lambda: calls.append(1)}, rounds=rounds, block=0, clock="wall")
    assert len(calls) == 2 + rounds
