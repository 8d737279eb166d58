"""Recipes: what is accepted, and what a mistake is told."""

import json
import textwrap
from pathlib import Path

import pytest

from mvssl.compose import construct
from mvssl.errors import RecipeError
from mvssl.recipe import Recipe, load_recipe, to_yaml
from mvssl.schema import schema

GOOD = """
data: {train: "a/*.tar", columns: {image: {field: jpg}}, batch_size: 64}
views: {a: {from: image, augment: dim}, b: {from: image, geometry: a}}
encoder: {a: {name: resnet18}, b: {name: resnet18}}
objective: [{name: cmc, weight: 3e-4}]
train: {steps: 10, out: runs/x}
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    return file


def test_three_e_minus_four_is_a_number(good: Path):
    assert load_recipe(good).objective[0].weight == 3e-4
    assert load_recipe(good, ["optim.lr=3e-5"]).optim.lr == 3e-5


def test_an_override_reaches_any_depth_and_makes_missing_tables(good: Path):
    recipe = load_recipe(good, ["views.a.count=2", "objective.0.temperature=0.1", "evaluate.draws=5"])
    assert recipe.views["a"].count == 2
    assert recipe.objective[0].options == {"temperature": 0.1}
    assert recipe.evaluate.draws == 5


def test_one_encoder_table_is_shared_by_all_views(good: Path):
    recipe = load_recipe(good, ["encoder={name: resnet18}"])
    assert list(recipe.encoder) == ["a,b"]


def test_what_is_written_out_reads_back_as_the_same_recipe(good: Path, tmp_path: Path):
    recipe = load_recipe(good)
    (tmp_path / "again.yaml").write_text(to_yaml(recipe))
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_a_null_that_was_written_is_read_back_as_null(good: Path, tmp_path: Path):
    recipe = load_recipe(good, ["views.a.normalize=null", "objective.0.soft_clip=null"])
    (tmp_path / "again.yaml").write_text(to_yaml(recipe))
    again = load_recipe(tmp_path / "again.yaml")
    assert again.views["a"].options == {"normalize": None}
    assert again.objective[0].options == {"soft_clip": None}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.bath_size=3", "data.bath_size: unknown key; did you mean 'batch_size'?"),
        ("encoder.a.nme=3", "encoder.a.nme: unknown key; did you mean 'name'?"),
        ("data.columns.image.siz=3", "data.columns.image.siz: unknown key; did you mean 'size'?"),
        ("optim.lr=abc", "optim.lr: should be a valid number"),
        ("objective.0.weight=x", "objective.0.weight: should be a valid number"),
        ("train.epochs=3", "give either epochs or steps"),
        ("train.out=null", "train.out: should be a valid string"),
        ("views.a.from=imge", "views.a.from: no column 'imge'; did you mean 'image'?"),
        ("views.b.geometry=c", "views.b.geometry: no view 'c'"),
        ("encoder={a: {name: resnet18}}", "encoder: view 'b' needs exactly one encoder; it has 0"),
        ("objective.7.name=x", "a list of 1 has the places 0 to 0"),
        ("views.a.from.x=3", "views.a.from is a value, not a table"),
        ("nonsense", "write table.key=value"),
        ("data=4", "data: should be"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_the_way_out(good: Path, override: str, said: str):
    with pytest.raises(RecipeError) as caught:
        load_recipe(good, [override])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: [", "not valid YAML"),
        ("- 1", "a recipe is a mapping"),
        ("data: &a {train: x}\nviews: *a", "aliases"),
        ("data: !!python/object:os.system {}", "not valid YAML"),
    ],
)
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str, said: str):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=said):
        load_recipe(file)


def test_a_missing_file_is_named():
    with pytest.raises(RecipeError, match=r"nowhere\.yaml cannot be read"):
        load_recipe("nowhere.yaml")


def test_a_signature_is_a_schema():
    class Made:
        def __init__(self, shape: int, *, size: int = 3, mode: str | None = None):
            self.given = (shape, size, mode)

    assert construct(Made, {"size": 4}, "views.a", 1).given == (1, 4, None)
    with pytest.raises(RecipeError, match=r"views\.a\.siz: unknown key; did you mean 'size'"):
        construct(Made, {"siz": 4}, "views.a", 1)
    with pytest.raises(RecipeError, match=r"views\.a\.size: should be a valid integer"):
        construct(Made, {"size": "x"}, "views.a", 1)


def test_the_schema_lists_the_options_of_views_and_objectives():
    whole = schema()
    json.dumps(whole)
    assert {"image", "vector"} <= {branch["title"] for branch in whole["$defs"]["View"]["anyOf"]}
    assert {"dim", "amdim", "cmc", "mib"} <= {branch["title"] for branch in whole["$defs"]["Objective"]["anyOf"]}
    branches = {branch["title"]: branch["properties"] for branch in whole["$defs"]["Objective"]["anyOf"]}
    assert "temperature" in branches["cmc"]


def test_every_table_of_a_recipe_says_what_it_is():
    assert all(textwrap.dedent(table.get("description", "")) for table in Recipe.model_json_schema()["$defs"].values())
