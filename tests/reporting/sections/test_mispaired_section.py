"""Mispaired samples on the page."""

import json

from report_reading import append, find_reason, read


def test_mispaired_samples_are_listed_and_drawn(run):
    shards = ["/old/home/train/000001.tar", "train/000000.tar", "train/000001.tar"]
    keys = ["00000020", "00000005", "00000006"]
    rows = [{"shard": s, "key": k, "views": "image-depth", "score": 0.4} for s, k in zip(shards, keys, strict=True)]
    (run / "mispaired.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    page = read(run)
    assert "image-depth" in page.text
    assert "/old/home" not in page.text  # the folder is another machine's
    drawn = [key for key in keys if f"image of sample {key}" in page.all("alt")]
    assert drawn == keys[:2]  # the third is in another shard
    assert "mispaired" in read(run, samples=0).sections
    (run / "mispaired.jsonl").write_text("")
    before = find_reason(run, "Mispaired samples")
    append(run, {"step": 6, "mispaired": 0})
    assert find_reason(run, "Mispaired samples") != before
    (run / "mispaired.jsonl").unlink()
    assert "mispaired.jsonl" in find_reason(run, "Mispaired samples")
