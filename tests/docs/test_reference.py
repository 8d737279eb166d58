"""The reference names every option, and the files beside the documents are in order."""

import importlib
import importlib.util
import re

import pytest
import yaml
from pages import ROOT, commands

from mvssl.objectives import OBJECTIVES
from mvssl.recipe.options import options_of
from mvssl.views import VIEWS

REFERENCE = ROOT / "docs" / "reference"
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("name", VIEWS)
def test_the_page_of_views_names_every_option(name):
    page = (REFERENCE / "views.md").read_text()
    section = page.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert [option for option in options_of(VIEWS[name]).model_fields if f"`{option}`" not in section] == []


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_page_of_objectives_names_every_option(name):
    page = (REFERENCE / "objectives.md").read_text()
    section = re.split(rf"\n## {name}: ", page, flags=re.IGNORECASE)[1].partition("\n## ")[0]
    assert [option for option in options_of(OBJECTIVES[name]).model_fields if f"`{option}`" not in section] == []


def stated_defaults(section: str) -> dict[str, str]:
    """Return the default of each option in the tables of a section; a row may hold several options and defaults."""
    stated = {}
    for line in section.splitlines():
        cells = re.split(r"(?<!\\)\|", line)
        names = re.findall(r"`(\w+)`", cells[1]) if len(cells) == 5 else []
        defaults = re.split(r", (?![^\[]*\])", cells[2].strip()) if names else []
        if len(names) == len(defaults):
            stated |= dict(zip(names, (default.strip("`") for default in defaults), strict=True))
    return stated


@pytest.mark.parametrize(
    ("page", "name", "made"),
    [("views", name, made) for name, made in VIEWS.items()]
    + [("objectives", name, made) for name, made in OBJECTIVES.items()],
)
def test_stated_defaults_are_those_of_the_code(page, name, made):
    text = (REFERENCE / f"{page}.md").read_text()
    stated = stated_defaults(re.split(rf"(?i)\n## {name}\b[^\n]*", text)[1].partition("\n## ")[0])
    for option, field in options_of(made).model_fields.items():
        if isinstance(field.default, bool | int | float | str):
            default = str(field.default).lower()
            assert stated[option] == default or float(stated[option]) == float(default), option


def test_every_page_is_in_the_menu():
    menu = re.findall(r"(?m)^([a-z_]+(?:/[a-z_]+)?)$", (ROOT / "docs/index.md").read_text())
    pages = {str(page.relative_to(ROOT / "docs").with_suffix("")) for page in (ROOT / "docs").rglob("*.md")}
    assert set(menu) == {page for page in pages if "generated" not in page} - {"index"}


def test_every_recipe_is_in_the_list_of_recipes():
    page = (REFERENCE / "recipes.md").read_text()
    assert [recipe.stem for recipe in RECIPES if f"`{recipe.stem}`" not in page] == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_the_lines_of_a_recipe_fit_a_screen(recipe):
    assert max(map(len, recipe.read_text().splitlines())) <= 120


def test_the_continuous_integration_runs_the_test_command_of_the_readme():
    command = next(line for line in commands(ROOT / "README.md") if "pytest" in line)
    assert command in (ROOT / ".ci/run").read_text().replace("--quiet ", "")


def test_the_citation_has_what_the_format_requires():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= citation.keys()
    version = re.search(r'(?m)^version = "(.*)"', (ROOT / "pyproject.toml").read_text())
    assert version is not None
    assert citation["version"] == version[1]


def test_every_new_import_path_of_the_changelog_exists():
    moved = (ROOT / "CHANGELOG.md").read_text().partition("### Moved modules")[2]
    paths = re.findall(r"`(mvssl\.[\w.]+)`", " ".join(re.findall(r"(?m)\|([^|]*)\|$", moved)))
    assert len(paths) > 30
    assert [path for path in paths if not resolves(path)] == []


def resolves(path: str) -> bool:
    """Return whether an import path is a module or a name of a module."""
    module, _, name = path.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), name) or bool(importlib.util.find_spec(path))
    except ModuleNotFoundError:
        return False
