"""Recipes are read from files, changed by overrides, and written so that they read back equal."""

from pathlib import Path

import pytest

from mvssl.errors import RecipeError
from mvssl.recipe import load_recipe, to_yaml
from mvssl.recipe.loading import override_all


def test_an_override_may_be_nested_and_creates_missing_tables(good: Path):
    recipe = load_recipe(good, ["views.a.count=2", "objective.0.temperature=0.1", "evaluate.draws=5"])
    assert recipe.views["a"].count == 2
    assert recipe.objective[0].options == {"temperature": 0.1}
    assert recipe.evaluate.draws == 5


def test_a_written_recipe_reads_back_as_the_same_recipe(good: Path, tmp_path: Path):
    recipe = load_recipe(good)
    (tmp_path / "again.yaml").write_text(to_yaml(recipe))
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_a_null_that_was_written_is_read_back_as_null(good: Path, tmp_path: Path):
    recipe = load_recipe(good, ["views.a.normalize=null", "objective.0.soft_clip=null"])
    (tmp_path / "again.yaml").write_text(to_yaml(recipe))
    again = load_recipe(tmp_path / "again.yaml")
    assert again.views["a"].options == {"normalize": None}
    assert again.objective[0].options == {"soft_clip": None}


def test_the_later_of_steps_and_epochs_wins_and_is_reported_once(good: Path, caplog):
    recipe = load_recipe(good, ["train.epochs=3"])
    assert (recipe.train.epochs, recipe.train.steps) == (3, None)
    assert caplog.messages == ["train.steps=10 of the recipe is replaced by train.epochs=3 of the command line"]


def test_only_the_main_process_reports_which_override_wins(good: Path, caplog, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    load_recipe(good, ["train.epochs=3"])
    assert caplog.messages == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_utf16_and_byte_order_marks_are_read(good: Path, tmp_path: Path, encoding: str):
    (tmp_path / "x.yaml").write_bytes(good.read_text().replace("\n", "\r\n").encode(encoding))
    if encoding == "utf-16-le":  # without a mark
        with pytest.raises(RecipeError, match=r"x\.yaml: line 1: not valid YAML"):
            load_recipe(tmp_path / "x.yaml")
    else:
        assert load_recipe(tmp_path / "x.yaml") == load_recipe(good)


@pytest.mark.parametrize(
    "content", [b"", b"# nothing\n", b"\xff\xfe\xff", b"\x80abc", b"a" * 4_000_001, b"- 1", b"x", b"5"]
)
def test_a_file_that_holds_no_tables_is_refused_by_name(tmp_path: Path, content: bytes):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(RecipeError, match=r"x\.yaml"):
        load_recipe(tmp_path / "x.yaml")


def test_an_endless_file_and_a_folder_are_refused(tmp_path: Path):
    for path in ("/dev/zero", tmp_path):
        with pytest.raises(RecipeError):
            load_recipe(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: [", "not valid YAML"),
        ("- 1", "is no table"),
        ("data: &a {train: x}\nviews: *a", "aliases"),
        ("data: !!python/object:os.system {}", "tags .* are not accepted"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str, message: str):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(file)


def test_a_missing_file_is_named():
    with pytest.raises(RecipeError, match=r"nowhere\.yaml cannot be read"):
        load_recipe("nowhere.yaml")


def override(tables, *words):
    return override_all(tables, words), tables


def test_the_later_of_two_overrides_of_one_key_wins_and_is_reported():
    messages, tables = override({}, "optim.lr=1", "optim.lr=2", "optim.lr=3")
    assert tables == {"optim": {"lr": 3}}
    assert messages == [
        "optim.lr=1 is replaced by the later optim.lr=2",
        "optim.lr=2 is replaced by the later optim.lr=3",
    ]


def test_an_override_of_a_table_replaces_those_of_its_keys():
    messages, tables = override({}, "optim.lr=1", "optim={lr: 2, clip: 1}", "optim.clip=3", "optim.eps=1")
    assert tables == {"optim": {"lr": 2, "clip": 3, "eps": 1}}
    assert messages == [
        "optim.lr=1 is replaced by the later optim={lr: 2, clip: 1}",
        "clip of optim={lr: 2, clip: 1} is replaced by the later optim.clip=3",
    ]


@pytest.mark.parametrize(
    ("before", "key", "expected"), [("epochs", "steps", {"steps": 4}), ("steps", "epochs", {"epochs": 4})]
)
def test_steps_replace_epochs_and_epochs_replace_steps(before, key, expected):
    messages, tables = override({"train": {before: 1}}, f"train.{key}=4")
    assert tables == {"train": expected}
    assert messages == [f"train.{before}=1 of the recipe is replaced by train.{key}=4 of the command line"]
    messages, tables = override({"train": {}}, f"train.{before}=1", f"train.{key}=4")
    assert tables == {"train": expected}
    assert messages == [f"train.{before}=1 is replaced by train.{key}=4 of the command line"]


def test_a_key_that_is_set_to_null_replaces_no_other_key():
    assert override({"train": {"epochs": 1}}, "train.steps=null") == ([], {"train": {"epochs": 1, "steps": None}})


@pytest.mark.parametrize("word", ["a", "=1", "a..b=1", ".a=1", "a.=1", "a=*.tar", "a={0..9}.tar", "a=b #c", "a=!b"])
def test_an_override_that_means_nothing_is_refused(word):
    with pytest.raises(RecipeError):
        override_all({}, [word])
