"""The verbs index and verify, as they print and end."""

import pytest
from shard_making import write_digits, write_tar

from mvssl.cli.main import main


def run(capsys, *words) -> tuple[int, str, str]:
    code = 0
    try:
        main([str(word) for word in words])
    except SystemExit as stopped:
        code = stopped.code
    return code, *capsys.readouterr()


@pytest.mark.parametrize("verb", ["index", "verify"])
def test_control_characters_of_keys_and_fields_reach_no_terminal(tmp_path, capsys, verb):
    path = write_tar(tmp_path / "x\x1b[2J.tar", [("a\x1b]0;t\x07\x9b.cls", b"\x01\x1b"), ("b.\x1b[31m.cls", b"1\r")])
    _, out, err = run(capsys, verb, path)
    assert all(line.isprintable() for line in (out + err).splitlines())
    assert r"\x1b[2J" in out
    code, out, err = run(capsys, verb, tmp_path / "no\x1b[2J.tar")
    assert (code, out) == (65, "")
    assert all(line.isprintable() for line in err.splitlines())


def test_digests_are_made_reported_and_verified(tmp_path, capsys):
    (path,) = write_digits(tmp_path, [3])
    assert "digests of all" not in run(capsys, "index", path)[1]
    assert "digests of all bodies: in the index of 1 of 1 shard" in run(capsys, "index", "--digests", path)[1]
    assert run(capsys, "verify", path)[0] == 0
    data = bytearray(path.read_bytes())
    place = data.index(b"0001.cls") + 512
    assert data[place : place + 1] == b"1"
    data[place] ^= 2  # the class 1 becomes 3
    path.write_bytes(data)
    code, out, _ = run(capsys, "verify", path)
    assert (code, "0001 cls: the bytes differ from the index's digest" in out) == (65, True)
    assert "1 body had another digest" in run(capsys, "index", "--digests", path)[1]
    assert run(capsys, "verify", path)[0] == 0
