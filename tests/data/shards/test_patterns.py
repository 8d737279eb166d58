import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from braceexpand import braceexpand

from mvssl.data import find_shards
from mvssl.data.shards.patterns import count_brace_names
from mvssl.errors import DataError, OutputError, RecipeError
from mvssl.files import cache_folder


@pytest.fixture
def root(tmp_path):
    for name in ("set/train/000000.tar", "set/train/000001.tar", "set/val/000000.tar", "set/train/names.tsv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    "patterns",
    [
        "set/train/*.tar",
        "set/train/{000000..000001}.tar",
        "set/train",
        "**/train/*.tar",
        ["set/train/000000.tar", "set/train/000001.tar"],
        "set/train/{000000,000001}.tar",
    ],
)
def test_paths_globs_braces_folders_and_lists_name_shards(root, patterns):
    assert find_shards(patterns, root) == [root / "set/train/000000.tar", root / "set/train/000001.tar"]


def test_a_list_keeps_its_order_and_absolute_paths_need_no_root(root, tmp_path):
    listed = [str(root / "set/val/*.tar"), str(root / "set/train/*.tar")]
    assert [path.parent.name for path in find_shards(listed, tmp_path / "elsewhere")] == ["val", "train", "train"]


def test_a_pattern_without_a_match_names_the_folder_and_advice(root):
    with pytest.raises(DataError) as error:
        find_shards("set/test/*.tar", root)
    for part in ("set/test/*.tar", str(root), "holds train/, val/", "mvssl pack", "data.root", "MVSSL_DATA"):
        assert part in str(error.value)


def test_a_root_that_does_not_exist_is_an_error_too(tmp_path):
    with pytest.raises(DataError, match="holds nothing"):
        find_shards("*.tar", tmp_path / "no" / "such")


@pytest.mark.parametrize("last", [2, 3])
def test_a_gap_in_a_range_is_named(root, last):
    with pytest.raises(DataError, match=r"missing: .*000002\.tar"):
        find_shards(f"set/train/{{000000..00000{last}}}.tar", root)


def test_a_shard_named_twice_is_an_error(root):
    with pytest.raises(DataError, match="twice"):
        find_shards(["set/train/*.tar", "set/../set/train/000001.tar"], root)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("pipe:cat x.tar", "shell command"),
        ("s3://b/x.tar", "later version"),
        ("https://h/x.tar", "local folder"),
        ("a{b", "brace"),
    ],
)
def test_commands_addresses_and_open_braces_are_refused(tmp_path, pattern, message):
    with pytest.raises(RecipeError, match=message):
        find_shards(pattern, tmp_path)


def test_a_folder_whose_subfolders_hold_the_shards_names_them(root):
    with pytest.raises(DataError, match=r"Name set/train, set/val$"):
        find_shards("set", root)


ODD_NAMES = ["d[2024]", "{a,b}", "{1..3}", "set*", "what?", "[!x]", "a{b", "back\\slash", "**"]


@pytest.mark.parametrize("name", ODD_NAMES)
@pytest.mark.parametrize("pattern", ["*.tar", "{000000,000001}.tar", "", "**/*.tar"])
def test_pattern_characters_in_names_of_folders_are_literal(tmp_path, monkeypatch, name, pattern):
    folder = tmp_path / name / "train"
    folder.mkdir(parents=True)
    (tmp_path / "d2" / "train").mkdir(parents=True)  # what d[2024] would match
    shards = [folder / "000000.tar", folder / "000001.tar"]
    for shard in shards:
        shard.touch()
    monkeypatch.chdir(tmp_path)
    assert find_shards(f"train/{pattern}", tmp_path / name) == shards  # as the root
    assert find_shards(f"{name}/train/{pattern}", tmp_path) == shards  # under the root, above the pattern
    assert find_shards(f"{folder}/{pattern}", Path("elsewhere")) == shards  # absolute
    assert [path.absolute() for path in find_shards(f"{name}/train/{pattern}", Path("."))] == shards


@pytest.mark.parametrize("name", ["x[1].tar", "{a,b}.tar", "{0..1}.tar", "*.tar"])
def test_a_shard_named_exactly_like_a_pattern_is_used(tmp_path, name):
    for each in (name, "x1.tar", "a.tar", "b.tar", "0.tar", "1.tar"):
        (tmp_path / each).touch()
    assert find_shards(name, tmp_path) == [tmp_path / name]


def test_the_home_folder_is_written_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x.tar").touch()
    for patterns, root in [("~/x.tar", Path("elsewhere")), ("*.tar", Path("~"))]:
        assert find_shards(patterns, root) == [tmp_path / "x.tar"]
    with pytest.raises(RecipeError, match="there is no user"):
        find_shards("~nobody-of-this-name/x.tar", tmp_path)


def test_a_folder_that_may_not_be_listed_is_no_crash(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        find_shards("*.tar", tmp_path)
    monkeypatch.undo()
    with pytest.raises(DataError, match="no shards match"):
        find_shards("x" * 300, tmp_path)  # longer than a name may be


def no_home(monkeypatch, tmp_path):
    monkeypatch.delenv("MVSSL_CACHE", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # a user without a name, as in containers
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_without_a_home_the_cache_is_a_private_temporary_folder(tmp_path, monkeypatch):
    no_home(monkeypatch, tmp_path)
    for _ in range(2):
        folder = cache_folder()
        assert folder == tmp_path / f"mvssl-{os.getuid()}"
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("odd", ["open to others", "a link", "another user's", "a file"])
def test_a_temporary_cache_that_somebody_else_may_write_to_is_refused(tmp_path, monkeypatch, odd):
    no_home(monkeypatch, tmp_path)
    folder = tmp_path / f"mvssl-{os.getuid()}"
    if odd == "open to others":
        folder.mkdir()
        folder.chmod(0o777)
    elif odd == "a link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "theirs")
    elif odd == "a file":
        folder.touch()
    else:
        folder.mkdir(mode=0o700)
        monkeypatch.setattr(os, "getuid", lambda: 4242)
        folder.rename(tmp_path / "mvssl-4242")
    with pytest.raises(OutputError, match="MVSSL_CACHE=FOLDER"):
        cache_folder()


def patterns(seed: int) -> Iterator[str]:
    draw = np.random.default_rng(seed)
    pieces = ["{", "}", "{", "}", ",", "..", "a", "b", "1", "3", "03", "-2", "0", "\\", "..2", "{1..3}", "{a,b}", "{x}"]
    for _ in range(600):
        yield "".join(draw.choice(pieces, int(draw.integers(1, 9))))


def test_braces_are_counted_as_they_are_expanded():
    seen = 0
    for pattern in patterns(0):
        try:
            counted = count_brace_names(pattern, pattern)
        except RecipeError:
            continue
        expanded = len(list(braceexpand(pattern)))  # ValueError where the braces do not match
        seen += expanded > 1
        assert expanded <= counted <= expanded + 52 * expanded * ("{a..b" in pattern), pattern
    assert seen > 50


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{0..100000000}.tar", "100,000,001 shards"),
        ("{{1..2000}..}{1..2000}.tar", "4,000,000 shards"),
        ("{1..1000}{1..1000}{1..1000}.tar", "1,000,000,000 shards"),
        ("{0..999999999999999999999}.tar", "more than"),
        ("{1..9}" * 400, "more than"),
        ("{a,b}" * 30, "1,073,741,824 shards"),
        ("{" * 60 + "a,b" + "}" * 60, "in each other"),
        ("x" * 5000, "5,000 letters"),
        ("x\0.tar", "letters"),
    ],
)
def test_braces_that_name_too_many_shards_are_refused_at_once(tmp_path, pattern, message, bounds):
    with pytest.raises(RecipeError, match=message) as error:
        find_shards(pattern, tmp_path)
    assert error.value.code == 64
