"""What a line of progress says of many bounds at once, and what an interval's means are taken over."""

import json

import pytest
import torch
from accelerate import Accelerator
from fault_views import operations

from mvssl.training.log import Log, format_bounds

TAKEN, VETOED = torch.tensor(False), torch.tensor(True)


def metrics(pairs: dict[str, tuple[float, float]], jsd: dict[str, float]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for pair, (bound, ceiling) in pairs.items():
        found |= {f"bound/{pair}": bound, f"ceiling/{pair}": ceiling}
    for pair, value in jsd.items():
        found |= {f"bound/{pair}": -1e9, f"jsd/{pair}": value}
    return found


def test_up_to_three_bounds_are_listed_by_name():
    assert format_bounds(metrics({"a-b": (1.0, 2.0)}, {"a-c": 0.5})) == [
        "a-b 1.00 of 2.00 nats",
        "a-c JSD 0.50 of 1.39",
    ]


def test_many_bounds_are_summarized_by_unit_as_mean_and_minimum():
    pairs = {"a-b": (1.0, 4.0), "a-c": (2.0, 4.0), "b-c": (3.0, 4.0)}
    assert format_bounds(metrics(pairs, {"x-y": 0.2, "x-z": 0.6})) == [
        "3 bounds, mean 2.00 of 4.00 nats, least 1.00 (a-b)",
        "2 bounds, mean JSD 0.40 of 1.39, least 0.20 (x-y)",
    ]


def log(folder, every: int = 100) -> Log:
    return Log(Accelerator(cpu=True), folder, start=0, steps=100, every=every, batch_size=1)


def test_metrics_of_an_interval_are_means_over_the_steps_that_were_taken(tmp_path):
    shown = log(tmp_path, every=4)
    for step, (loss, vetoed) in enumerate(((1.0, TAKEN), (torch.nan, VETOED), (2.0, TAKEN), (6.0, TAKEN)), 1):
        metrics = {"loss": torch.tensor(loss), "half": torch.tensor(loss / 2, dtype=torch.bfloat16)}
        shown.add(step, metrics | ({"rare": torch.tensor(9)} if step == 4 else {}), vetoed, 0.0, 0.1)
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (line["loss"], line["half"], line["skipped"]) == (3.0, 1.5, 1)
    assert line["rare"] == pytest.approx(3)


def test_adding_metrics_costs_as_much_for_many_as_for_few(tmp_path):
    counts = []
    for many in (1, 50):
        shown, metrics = log(tmp_path), {f"m{i}": torch.tensor(1.0) for i in range(many)} | {"loss": torch.tensor(1.0)}
        shown.add(1, metrics, TAKEN, 0.0, 0.1)
        with operations() as done:
            shown.add(2, metrics, TAKEN, 0.0, 0.1)
        counts.append(len(done))
    assert counts[0] == counts[1] <= 6
