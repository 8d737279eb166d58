"""Benchmarks of data run: every way gives the same samples, and shards with gaps open like whole ones."""

import json

import numpy as np
import pytest

from mvssl.bench.inputs import decoding, indexing
from mvssl.bench.synthetic import make_jpeg
from mvssl.data import open_shards


def test_all_decoders_give_the_same_pixels():
    data = make_jpeg(0, 24, 40)
    ours, *others = (decode(data) for decode in decoding.list_decoders().values())
    assert others
    assert all(np.array_equal(ours, other) for other in others)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # by webdataset
def test_jpegs_are_decoded_read_and_trained_on(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)  # for the tests that follow
    file = tmp_path / "decode.json"
    monkeypatch.setattr(decoding, "_BATCH", 8)
    monkeypatch.setattr(decoding, "_SAMPLES", 16)
    result = decoding.bench_decode(sizes={"16x16": (16, 16)}, steps=1, workers=0, rounds=1, json_file=file)
    assert json.loads(file.read_text())["loop"]["ratio"] == pytest.approx(result["loop"]["ratio"])
    assert [row["beside"] is not None for row in result["rows"]] == [True, True]


def test_shards_are_indexed_and_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(indexing, "_PER_SHARD", 50)
    result = indexing.bench_index(samples=100, opened=150, json_file=tmp_path / "index.json")
    assert [row["what"] for row in result["rows"]] == ["index 100 samples", "open 150 samples"]
    assert result["rows"][0]["beside"] == "tarfile"


def test_a_shard_with_gaps_opens_from_its_index(tmp_path, monkeypatch):
    from mvssl.data.shards import index_cache

    monkeypatch.setattr(indexing, "_PER_SHARD", 200)
    indexing._write_shard(tmp_path / "000000.tar", 0, gaps=True)
    monkeypatch.setattr(index_cache, "scan_shard", None)  # a scan would find the gaps
    source = open_shards("*.tar", tmp_path, indexing.COLUMNS)
    assert len(source) == 200
    assert source[199]["label"] == 3
