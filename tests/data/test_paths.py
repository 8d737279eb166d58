import pytest

from mvssl.data import expand
from mvssl.errors import DataError, RecipeError


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
    assert expand(patterns, root) == [root / "set/train/000000.tar", root / "set/train/000001.tar"]


def test_a_list_keeps_its_order_and_absolute_paths_need_no_root(root, tmp_path):
    listed = [str(root / "set/val/*.tar"), str(root / "set/train/*.tar")]
    assert [path.parent.name for path in expand(listed, tmp_path / "elsewhere")] == ["val", "train", "train"]


def test_a_pattern_without_a_match_says_where_it_looked_and_what_to_do(root):
    with pytest.raises(DataError) as error:
        expand("set/test/*.tar", root)
    for said in ("set/test/*.tar", str(root), "holds train/, val/", "mvssl pack", "data.root", "MVSSL_DATA"):
        assert said in str(error.value)


def test_a_root_that_does_not_exist_is_an_error_too(tmp_path):
    with pytest.raises(DataError, match="holds nothing"):
        expand("*.tar", tmp_path / "no" / "such")


def test_a_gap_in_a_range_is_named(root):
    with pytest.raises(DataError, match=r"000002\.tar"):
        expand("set/train/{000000..000003}.tar", root)


def test_a_shard_named_twice_is_an_error(root):
    with pytest.raises(DataError, match="twice"):
        expand(["set/train/*.tar", "set/../set/train/000001.tar"], root)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("pipe:cat x.tar", "shell command"),
        ("s3://b/x.tar", "later version"),
        ("https://h/x.tar", "local folder"),
        ("a{b", "brace"),
    ],
)
def test_commands_addresses_and_open_braces_are_refused_with_words(tmp_path, pattern, said):
    with pytest.raises(RecipeError, match=said):
        expand(pattern, tmp_path)


def test_a_folder_whose_folders_hold_the_shards_is_told_apart(root):
    with pytest.raises(DataError, match=r"Name set/train, set/val$"):
        expand("set", root)
