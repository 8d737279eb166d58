"""The benchmark of saves measures a wait that is a part of the save."""

import json

from mvssl.bench.saving import bench_save


def test_every_round_saves_beside_the_loop_and_once_more_until_the_end(tmp_path):
    file = tmp_path / "save.json"
    result = bench_save(parameters=20_000, rounds=2, json_file=file)
    assert json.loads(file.read_text())["share"] == result["share"]
    assert [len(result[name]) for name in ("waits", "takes", "slowed")] == [2, 2, 2]
    assert all(0 < waits < takes for waits, takes in zip(result["waits"], result["takes"], strict=True))
    assert result["buffer"] > 3 * 4 * 20_000  # weights and two moments
