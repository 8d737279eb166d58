"""The tables of a recipe: which values are accepted, and what a mistake reports."""

import json
import textwrap
from pathlib import Path

import pytest

from mvssl.cli.json_schema import build_json_schema
from mvssl.errors import RecipeError
from mvssl.recipe import Data, Recipe, load_recipe, to_yaml
from mvssl.runs.folder import differences


def test_three_e_minus_four_is_a_number(good: Path):
    assert load_recipe(good).objective[0].weight == 3e-4
    assert load_recipe(good, ["optim.lr=3e-5"]).optim.lr == 3e-5


def test_one_encoder_table_is_shared_by_all_views(good: Path):
    recipe = load_recipe(good, ["encoder={name: resnet18}"])
    assert list(recipe.encoder) == ["a,b"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.bath_size=3", "data.bath_size: unknown key; did you mean 'batch_size'?"),
        ("encoder.a.nme=3", "encoder.a.nme: unknown key; did you mean 'name'?"),
        ("data.columns.image.siz=3", "data.columns.image.siz: unknown key; did you mean 'size'?"),
        ("optim.lr=abc", "optim.lr: expected a number"),
        ("objective.0.weight=x", "objective.0.weight: expected a number"),
        ("train.out=null", "train.out: expected a text"),
        ("views.a.from=imge", "views.a.from: no column 'imge'; did you mean 'image'?"),
        ("views.b.geometry=c", "views.b.geometry: no view 'c'"),
        ("encoder={a: {name: resnet18}}", "encoder: view 'b' needs exactly one encoder; it has 0"),
        ("objective.7.name=x", "a list of 1 has the places 0 to 0"),
        ("views.a.from.x=3", "views.a.from is a value, not a table"),
        ("nonsense", "write table.key=value"),
        ("data=4", "data: expected a table"),
    ],
)
def test_a_mistake_is_reported_with_its_place_and_a_hint(good: Path, override: str, message: str):
    with pytest.raises(RecipeError) as caught:
        load_recipe(good, [override])
    assert message in str(caught.value)


TEXT_FOR_A_NUMBER = [
    "1:30",
    "010",
    "0x10",
    "1_000",
    "'12'",
    "yes",
    "2024-01-01",
    "true",
    "1.5",
    "[1]",
    "{a: 1}",
]


@pytest.mark.parametrize("value", TEXT_FOR_A_NUMBER)
@pytest.mark.parametrize("key", ["train.steps", "data.batch_size", "views.a.count", "data.columns.image.rate"])
def test_only_a_whole_number_is_a_whole_number(good: Path, key: str, value: str):
    with pytest.raises(RecipeError, match=rf"{key}: expected a whole number, got "):
        load_recipe(good, [f"{key}={value}"])


@pytest.mark.parametrize(("value", "advice"), [("010", "10"), ("0x10", "16"), ("1_000", "1000"), ("'12'", "12")])
def test_a_number_in_another_notation_gets_a_hint(good: Path, value: str, advice: str):
    with pytest.raises(RecipeError, match=f"train.steps: expected a whole number, got the text .*; write {advice}$"):
        load_recipe(good, [f"train.steps={value}"])


def test_a_whole_number_may_have_an_exponent_but_no_fraction(good: Path):
    assert load_recipe(good, ["train.steps=1e3"]).train.steps == 1000
    assert type(load_recipe(good, ["train.steps=1e3"]).train.steps) is int
    assert load_recipe(good, ["optim.lr=1"]).optim.lr == 1.0


@pytest.mark.parametrize(
    ("value", "advice"), [("yes", "true"), ("off", "false"), ("1", ""), ("null", ""), ("'true'", "true")]
)
def test_only_true_and_false_are_booleans(good: Path, value: str, advice: str):
    with pytest.raises(RecipeError, match=f"train.joint_bn: expected true or false, got .*{advice}$"):
        load_recipe(good, [f"train.joint_bn={value}"])


@pytest.mark.parametrize("text", ["2024", "2024-01-01", "010", "no", "1:30", "1e", "./~"])
def test_text_where_text_is_expected_stays_as_written(good: Path, tmp_path: Path, text: str):
    recipe = load_recipe(good, [f"train.out={text}", f"data.columns.image.names=[{text}, 1]"])
    assert (recipe.train.out, recipe.data.columns["image"].names) == (text, [text, "1"])
    (tmp_path / "again.yaml").write_text(to_yaml(recipe))
    assert load_recipe(tmp_path / "again.yaml") == recipe


@pytest.mark.parametrize("value", ["1.10", "true", "1e3"])
def test_numbers_and_booleans_where_text_is_expected_need_quotes(good: Path, value: str):
    with pytest.raises(RecipeError, match=r"train\.out: expected a text, got .*; put it in quotes"):
        load_recipe(good, [f"train.out={value}"])
    assert load_recipe(good, [f'train.out="{value}"']).train.out == value


def test_views_may_be_called_on_and_no_and_columns_010(good: Path, tmp_path: Path):
    text = (
        good.read_text()
        .replace("image", "010")
        .replace("a: {from", "on: {from")
        .replace("b: {from: 010, geometry: a}", "no: {from: 010}")
    )
    (tmp_path / "x.yaml").write_text(
        text.replace("encoder: {a: {name: resnet18}, b:", "encoder: {on: {name: resnet18}, no:")
    )
    recipe = load_recipe(tmp_path / "x.yaml")
    assert (list(recipe.views), list(recipe.data.columns), list(recipe.encoder)) == (
        ["on", "no"],
        ["010"],
        ["on", "no"],
    )


@pytest.mark.parametrize("key", ["data.root", "data.train", "data.val", "data.pack", "encoder.a.init_from"])
def test_paths_of_a_recipe_keep_the_tilde_as_written(good: Path, monkeypatch, key: str):
    written = []
    for home in ("/home/me", "/users/me"):
        monkeypatch.setenv("HOME", home)
        written.append(load_recipe(good, [f"{key}=~/x"]))
    assert differences(*written) == ([], [])
    assert f"{key.rpartition('.')[2]}: ~/x" in to_yaml(written[0])


def test_the_run_folder_is_written_out(good: Path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert load_recipe(good, ["train.out=~/x"]).train.out == "/home/me/x"


@pytest.mark.parametrize(
    "key", ["data.root", "data.train", "data.val", "data.pack", "train.out", "encoder.a.init_from"]
)
def test_an_unknown_home_folder_is_refused_with_its_key(good: Path, key: str):
    with pytest.raises(RecipeError, match=f"{key}: ~nobody-here/x: there is no user"):
        load_recipe(good, [f"{key}=~nobody-here/x"])


def test_each_pattern_of_a_list_is_checked(good: Path):
    assert load_recipe(good, ["data.train=[~/a, b, ./~]"]).data.train == ["~/a", "b", "./~"]
    with pytest.raises(RecipeError, match="~nobody-here/x: there is no user"):
        load_recipe(good, ["data.train=[a, ~nobody-here/x]"])


@pytest.mark.parametrize(("root", "variable"), [("~/data", ""), (None, "~/data")])
def test_a_tilde_in_the_data_folder_is_expanded(monkeypatch, root, variable):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("MVSSL_DATA", variable)
    assert Data(root=root).folder == Path("/home/me/data")


def test_steps_and_epochs_at_one_place_are_refused(good: Path):
    for word in ("train={steps: 1, epochs: 1, out: x}",):
        with pytest.raises(RecipeError, match="train: give either epochs or steps"):
            load_recipe(good, [word])


def test_the_schema_lists_the_options_of_views_and_objectives():
    full = build_json_schema()
    json.dumps(full)
    assert {"image", "vector"} <= {branch["title"] for branch in full["$defs"]["ViewConfig"]["anyOf"]}
    assert {"dim", "amdim", "cmc", "mib"} <= {branch["title"] for branch in full["$defs"]["ObjectiveConfig"]["anyOf"]}
    branches = {branch["title"]: branch["properties"] for branch in full["$defs"]["ObjectiveConfig"]["anyOf"]}
    assert "temperature" in branches["cmc"]


def test_every_table_of_a_recipe_says_what_it_is():
    assert all(textwrap.dedent(table.get("description", "")) for table in Recipe.model_json_schema()["$defs"].values())
