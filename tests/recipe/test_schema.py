"""Recipes: what is accepted, and what a mistake is told."""

import json
import textwrap
from pathlib import Path

import pytest

from mvssl.cli.json_schema import schema
from mvssl.errors import RecipeError
from mvssl.recipe import Data, Recipe, load_recipe, to_yaml
from mvssl.recipe.options import construct
from mvssl.runs.folder import differences

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


def test_an_override_may_be_nested_and_creates_missing_tables(good: Path):
    recipe = load_recipe(good, ["views.a.count=2", "objective.0.temperature=0.1", "evaluate.draws=5"])
    assert recipe.views["a"].count == 2
    assert recipe.objective[0].options == {"temperature": 0.1}
    assert recipe.evaluate.draws == 5


def test_one_encoder_table_is_shared_by_all_views(good: Path):
    recipe = load_recipe(good, ["encoder={name: resnet18}"])
    assert list(recipe.encoder) == ["a,b"]


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


@pytest.mark.parametrize(
    ("override", "said"),
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
def test_a_mistake_is_reported_with_its_place_and_a_hint(good: Path, override: str, said: str):
    with pytest.raises(RecipeError) as caught:
        load_recipe(good, [override])
    assert said in str(caught.value)


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


@pytest.mark.parametrize(("value", "way_out"), [("010", "10"), ("0x10", "16"), ("1_000", "1000"), ("'12'", "12")])
def test_a_number_in_another_notation_gets_a_hint(good: Path, value: str, way_out: str):
    with pytest.raises(RecipeError, match=f"train.steps: expected a whole number, got the text .*; write {way_out}$"):
        load_recipe(good, [f"train.steps={value}"])


def test_a_whole_number_may_have_an_exponent_but_no_fraction(good: Path):
    assert load_recipe(good, ["train.steps=1e3"]).train.steps == 1000
    assert type(load_recipe(good, ["train.steps=1e3"]).train.steps) is int
    assert load_recipe(good, ["optim.lr=1"]).optim.lr == 1.0


@pytest.mark.parametrize(
    ("value", "way_out"), [("yes", "true"), ("off", "false"), ("1", ""), ("null", ""), ("'true'", "true")]
)
def test_only_true_and_false_are_booleans(good: Path, value: str, way_out: str):
    with pytest.raises(RecipeError, match=f"train.joint_bn: expected true or false, got .*{way_out}$"):
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


def test_views_may_be_called_on_and_no_and_columns_010(tmp_path: Path):
    text = (
        GOOD.replace("image", "010")
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


def test_options_of_a_class_are_as_strict_as_the_tables():
    class Made:
        def __init__(
            self, *, size: int | None = 3, pair: tuple[int, float] = (1, 2.0), name: str = "", on: bool = False
        ):
            self.given = (size, pair, name, on)

    assert construct(Made, {"size": 1e3, "pair": [1, 2], "name": 7, "on": True}, "x").given == (
        1000,
        (1, 2.0),
        "7",
        True,
    )
    for wrong in (
        {"size": True},
        {"size": "3"},
        {"pair": [True, 1]},
        {"pair": [1]},
        {"name": True},
        {"on": 1},
        {"on": "yes"},
    ):
        with pytest.raises(RecipeError, match=rf"^x\.{next(iter(wrong))}"):
            construct(Made, wrong, "x")


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


def test_each_pattern_of_a_list_is_looked_at(good: Path):
    assert load_recipe(good, ["data.train=[~/a, b, ./~]"]).data.train == ["~/a", "b", "./~"]
    with pytest.raises(RecipeError, match="~nobody-here/x: there is no user"):
        load_recipe(good, ["data.train=[a, ~nobody-here/x]"])


@pytest.mark.parametrize(("root", "variable"), [("~/data", ""), (None, "~/data")])
def test_a_tilde_in_the_data_folder_is_expanded(monkeypatch, root, variable):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("MVSSL_DATA", variable)
    assert Data(root=root).folder == Path("/home/me/data")


def test_the_later_of_steps_and_epochs_wins_and_is_reported_once(good: Path, caplog):
    recipe = load_recipe(good, ["train.epochs=3"])
    assert (recipe.train.epochs, recipe.train.steps) == (3, None)
    assert caplog.messages == ["train.steps=10 of the recipe is replaced by train.epochs=3 of the command line"]


def test_only_the_main_process_reports_which_override_wins(good: Path, caplog, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    load_recipe(good, ["train.epochs=3"])
    assert caplog.messages == []


def test_steps_and_epochs_at_one_place_are_refused(good: Path):
    for word in ("train={steps: 1, epochs: 1, out: x}",):
        with pytest.raises(RecipeError, match="train: give either epochs or steps"):
            load_recipe(good, [word])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_utf16_and_byte_order_marks_are_read(good: Path, tmp_path: Path, encoding: str):
    (tmp_path / "x.yaml").write_bytes(GOOD.replace("\n", "\r\n").encode(encoding))
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
    ("text", "said"),
    [
        ("data: [", "not valid YAML"),
        ("- 1", "is no table"),
        ("data: &a {train: x}\nviews: *a", "aliases"),
        ("data: !!python/object:os.system {}", "tags .* are not accepted"),
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
    with pytest.raises(RecipeError, match=r"views\.a\.size: expected a whole number"):
        construct(Made, {"size": "x"}, "views.a", 1)


def test_the_schema_lists_the_options_of_views_and_objectives():
    whole = schema()
    json.dumps(whole)
    assert {"image", "vector"} <= {branch["title"] for branch in whole["$defs"]["ViewConfig"]["anyOf"]}
    assert {"dim", "amdim", "cmc", "mib"} <= {branch["title"] for branch in whole["$defs"]["ObjectiveConfig"]["anyOf"]}
    branches = {branch["title"]: branch["properties"] for branch in whole["$defs"]["ObjectiveConfig"]["anyOf"]}
    assert "temperature" in branches["cmc"]


def test_every_table_of_a_recipe_says_what_it_is():
    assert all(textwrap.dedent(table.get("description", "")) for table in Recipe.model_json_schema()["$defs"].values())
