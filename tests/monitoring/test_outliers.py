"""Outliers among made-up numbers, and in a run with some sensors swapped on purpose."""

import json

import pytest
import torch
from small_runs import CONTRAST, sensors

from mvssl import train
from mvssl.monitoring.outliers import CHANCE, LEAST, VISITS, find_outliers, stands_out
from mvssl.recipe import parse_recipe

N = 2000


def ordinary(n: int = N, middle: float = -3.0) -> torch.Tensor:
    return (middle + 0.6 * torch.randn(n, dtype=torch.float64)).sigmoid()


def find(means: torch.Tensor, visits: float = 20.0, pairs: tuple[str, ...] = ("a-b",)):
    return find_outliers(means, torch.full(means.shape, 5.0), torch.full(means.shape[1:], visits), list(pairs))


def test_samples_at_chance_are_listed_and_few_others():
    means = ordinary()
    means[:40] = 0.5 + 0.1 * torch.randn(40)
    found = find(means[None])
    assert not found.why
    assert set(range(40)) <= {s.index for s in found.listed}
    assert len(found.listed) <= 48
    assert [s.score for s in found.listed] == sorted((s.score for s in found.listed), reverse=True)
    assert found.listed[0].views == "a-b"
    assert found.threshold == found.listed[-1].score >= CHANCE


def test_almost_no_ordinary_sample_is_listed():
    assert len(find(ordinary()[None]).listed) <= 3
    assert int(stands_out(ordinary()).sum()) <= 4


def test_the_view_that_fits_no_other_view_is_named():
    pairs = ("a-b", "a-c", "b-c")
    means = torch.stack([ordinary(), ordinary(), ordinary()])
    means[0, 7] = means[2, 7] = 0.5  # b fits neither a nor c
    found = find(means, pairs=pairs)
    assert (found.listed[0].index, found.listed[0].views) == (7, "b")
    assert found.listed[0].score == pytest.approx(0.5)


def test_views_that_never_occur_together_list_no_sample():
    means = torch.stack([ordinary(), torch.full((N,), torch.nan, dtype=torch.float64)])
    means[0, 3] = torch.nan
    found = find(means, pairs=("a-b", "b-c"))
    assert found.samples == N - 1
    assert len(found.listed) <= 3


@pytest.mark.parametrize(
    ("means", "visits", "why"),
    [
        (ordinary(LEAST - 1), 20, "49 samples were scored"),
        (ordinary(), VISITS - 1, "7 times, 8 are needed"),
        (ordinary(middle=0.0), 20, "not learned yet"),
    ],
)
def test_the_reason_is_given_when_the_test_cannot_run(means, visits, why):
    found = find(means[None], visits)
    assert not found.listed
    assert why in found.why


def test_a_run_finds_the_sensors_that_were_swapped(tmp_path, capsys):
    data = sensors(1500, 1)
    swapped = [*range(0, 1500, 50)]
    shifted = [data[i]["b"] for i in swapped]
    for i, other in zip(swapped, shifted[1:] + shifted[:1], strict=True):
        data[i] = {"a": data[i]["a"], "b": other}
    table = {"name": "mlp", "options": {"widths": [32]}}
    view = {"name": "vector", "noise": 0.3}
    recipe = parse_recipe({
        "data": {"batch_size": 100, "workers": 0},
        "views": {"a": {"from": "a", **view}, "b": {"from": "b", **view}},
        "encoder": {"a": table, "b": table},
        "objective": CONTRAST,
        "optim": {"lr": 3e-3, "schedule": "constant"},
        "train": {"steps": 150, "save_every": 100, "log_every": 50, "trackers": [], "out": str(tmp_path)},
    })  # fmt: skip
    train(recipe, data=data)
    lines = [json.loads(line) for line in (tmp_path / "mispaired.jsonl").read_text().splitlines()]
    found = {int(line["key"]) for line in lines}
    assert len(found & set(swapped)) >= 0.8 * len(swapped)
    assert len(found & set(swapped)) >= 0.8 * len(found)
    assert {"shard", "key", "views", "score", "threshold", "visits", "step"} == lines[0].keys()
    assert (tmp_path / "mispaired.png").stat().st_size > 1000
    assert f"{len(lines)} of 1,500 listed in mispaired.jsonl" in capsys.readouterr().err
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["mispaired"] == len(lines)
