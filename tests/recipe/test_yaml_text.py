"""YAML and overrides: what is written is what is meant, or it is refused with its line."""

import time

import pytest

from mvssl.errors import RecipeError
from mvssl.recipe.yaml_text import DEEPEST, as_yaml, parse_yaml

AS_TEXT = ["1:30", "010", "0x10", "0o7", "1_000", "+1", "yes", "no", "on", "off", "y", "n", "2024-01-01", "1.2.3", "="]
READ = {
    "0": 0, "-3": -3, "1e3": 1000.0, "3e-4": 3e-4, ".5": 0.5, "1.": 1.0, "true": True, "False": False,
    "null": None, "~": None, "": None, "'1'": "1", '"true"': "true", "|\n 010": "010", "[no, 010]": ["no", "010"],
}  # fmt: skip


@pytest.mark.parametrize("text", AS_TEXT)
def test_all_but_decimal_numbers_true_and_false_is_text(text):
    assert parse_yaml(text, "x") == text
    assert parse_yaml(f"{text}: {text}", "x") == {text: text}


@pytest.mark.parametrize("text", READ)
def test_numbers_booleans_and_null_are_read(text):
    found = parse_yaml(text, "x")
    assert (found, type(found)) == (READ[text], type(READ[text]))


def test_every_key_is_text():
    assert parse_yaml("{1: a, true: b, null: c, 1.50: d, on: e}", "x") == dict(
        zip(["1", "true", "null", "1.50", "on"], "abcde", strict=True)
    )


@pytest.mark.parametrize("text", [*AS_TEXT, *READ, "1e3", "1e5", "a: b", "#", "*x", " a ", "\u2028", "a\nb", "\x1b"])
def test_a_written_text_reads_back_as_the_same_text(text):
    assert parse_yaml(as_yaml({"a": [text], text: 1}), "x") == {"a": [text], text: 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: the key 'a' comes twice, first on line 1"),
        ("x:\n  y:\n  - {k: 1,\n     k: 2}", "line 4: the key 'k' comes twice, first on line 3"),
        ("a: 1\n'a': 2", "line 2: the key 'a' comes twice, first on line 1"),
        ("a: &b 1\nc: *b", "line 2: aliases"),
        ("a: 1\n<<: {b: 1}", "line 2: merging"),
        ("a:\n  !!int 3", "line 2: tags"),
        ("a: 1\n--- \nb: 2", "line 2, column 1: a second document"),
        ("a:\n\tb: 1", "line 2, column 1: .*spaces, not with tabs"),
        ("a: 1\nb: c\0d", r"line 2: not valid YAML: the character '\\x00'"),
        ("? [a]\n: 1", "line 1: a key is a text"),
        ("a: [1, 2", "line 1, column 9: not valid YAML"),
        ("a: 1" + "0" * 5000, "line 1: a number of 5,001 digits"),
        ("a: " + "[" * 100_000, f"line 1: nested deeper than {DEEPEST}"),
        ("- " * 100_000, f"line 1: nested deeper than {DEEPEST}"),
    ],
)
def test_ambiguous_yaml_is_refused_with_its_line(text, said):
    with pytest.raises(RecipeError, match=f"^x: {said}"):
        parse_yaml(text, "x")


def test_a_long_text_is_refused_before_it_is_read():
    began = time.perf_counter()
    with pytest.raises(RecipeError, match="larger than 1,000,000"):
        parse_yaml("a" * 10**8, "x")
    assert time.perf_counter() - began < 1
