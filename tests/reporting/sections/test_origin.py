"""The recipe on the page."""

from mvssl.reporting.sections.origin import compact_recipe


def test_a_compact_recipe_has_the_same_content_in_fewer_lines():
    text = "a: {b: null, c: [1, 2], d: {}}\ne: 0\nf: false\n"
    assert compact_recipe(text) == "a:\n  c: [1, 2]\ne: 0\nf: false\n"
