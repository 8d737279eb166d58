"""One is singular, and nothing that a command prints says otherwise."""

import re

import small_runs

from mvssl.cli.main import main
from mvssl.text import counted


def test_one_is_singular_and_thousands_have_a_comma():
    assert [counted(n, "sample") for n in (0, 1, 2, 1024)] == ["0 samples", "1 sample", "2 samples", "1,024 samples"]
    assert (counted(1, "class", "classes"), counted(2, "class", "classes")) == ("1 class", "2 classes")


def test_a_shard_of_one_sample_is_reported_in_the_singular(tmp_path, capsys):
    small_runs.write_shards(tmp_path / "one", (1,))
    for verb in ("index", "verify"):
        main([verb, str(tmp_path / "one")])
    said = capsys.readouterr().out
    assert "1 sample in 1 shard, " in said
    assert "1 shard, 1 sample, 3 fields decoded, " in said
    assert re.findall(r"\b1 [a-z]+s\b", said) == []
