"""The recipe on the page."""

import yaml
from report_reading import read

from mvssl.reporting.sections.origin import compact_recipe


def test_a_compact_recipe_has_the_same_content_in_fewer_lines():
    text = "a: {b: null, c: [1, 2], d: {}}\ne: 0\nf: false\n"
    assert compact_recipe(text) == "a:\n  c: [1, 2]\ne: 0\nf: false\n"


def test_the_recipe_is_shown_without_folders_of_this_machine(run):
    root = yaml.safe_load((run / "recipe.yaml").read_text())["data"]["root"]
    assert root not in read(run, samples=0).text
