"""Recipes as plain values: YAML read strictly, and written so that it reads back as the same values.

in   YAML text
out  dicts with text keys, lists, texts, numbers, true, false, None; or a `RecipeError` that names the line

Only true and false are booleans, and only decimal digits are numbers (YAML 1.2, core schema). So `on`, `no`, `010`,
`0x10`, `1_000`, `1:30` and `2024-01-01` are texts, and a key that needs a number refuses them. A key is always text.
"""

import contextlib
import json
import re
import shlex
from typing import Any

import yaml

from mvssl.errors import RecipeError

LARGEST = 1_000_000  # characters of a recipe
DEEPEST = 32  # tables and lists inside each other
LONGEST = 100  # digits of a whole number

_NOTHING = {"", "~", "null", "Null", "NULL"}
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE = re.compile(r"0|-?[1-9][0-9]*")
_DECIMAL = re.compile(r"-?(?=\.?[0-9])(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_ENDLESS = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


class _Loader(yaml.SafeLoader):
    """YAML without tags, without deep nesting, and without aliases, which can expand to a huge document."""

    depth = 0

    def compose_node(self, parent, index):
        event = self.peek_event()
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise RecipeError(f"line {line}: aliases (*name) are not accepted; put a text that begins with * in quotes")
        if event.tag is not None:
            raise RecipeError(f"line {line}: tags ({event.tag}) are not accepted; put a text with ! in quotes")
        if self.depth == DEEPEST:
            raise RecipeError(f"line {line}: nested deeper than {DEEPEST}")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


class _Dumper(yaml.SafeDumper):
    """Writes a text in quotes if YAML 1.1 or `parse_yaml` would read it as another type."""


_Dumper.add_implicit_resolver("tag:mvssl,number", re.compile(f"^({_DECIMAL.pattern})$"), list("-.0123456789"))


def as_yaml(tables: Any) -> str:
    """Return plain dicts as YAML; `parse_yaml` reads the same values from it."""
    return yaml.dump(tables, Dumper=_Dumper, sort_keys=False, width=120)


def parse_yaml(text: str, where: str) -> Any:
    """Return the values in a YAML text. Raise a `RecipeError` that names `where` and the line."""
    if len(text) > LARGEST:
        raise RecipeError(f"{where}: larger than {LARGEST:,} characters")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _value(node)
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: {_describe_error(error, text)}") from None


def shell_override(key: str, text: str) -> str:
    """Return a word of the shell that sets `key` of a recipe to `text`, quoted where YAML would read no text."""
    with contextlib.suppress(RecipeError):
        if parse_yaml(text, key) == text and "#" not in text:
            return shlex.quote(f"{key}={text}")
    return shlex.quote(f"{key}={json.dumps(text)}")


def _describe_error(error: yaml.YAMLError, text: str) -> str:
    """Return a message for an error of PyYAML, with its line."""
    if isinstance(error, yaml.reader.ReaderError):
        position = error.position if isinstance(error.position, int) else 0
        line = text.count("\n", 0, position) + 1
        return (
            f"line {line}: not valid YAML: the character {chr(error.character)!r} is not accepted; is this a text file?"
        )
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    problem = str(getattr(error, "problem", None) or "not understood")
    if problem == "but found another document":
        return f"{place}a second document begins (---); a recipe has only one"
    hint = "; indent with spaces, not with tabs" if "\\t" in problem else ""
    return f"{place}not valid YAML: {problem}{hint}"


def _value(node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    if isinstance(node, yaml.MappingNode):
        return _mapping(node)
    assert isinstance(node, yaml.ScalarNode)  # the third and last kind
    return node.value if node.style else _plain(node)


def _mapping(node: yaml.MappingNode) -> dict[str, Any]:
    lines: dict[str, int] = {}
    values = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise RecipeError(f"line {line}: a key is a text, not a list or a table")
        if key.value == "<<" and not key.style:
            raise RecipeError(f"line {line}: merging (<<) is not accepted; write the keys out")
        if key.value in lines:
            raise RecipeError(
                f"line {line}: the key {key.value!r} comes twice, first on line {lines[key.value]}; keep one of them"
            )
        lines[key.value] = line
        values[key.value] = _value(value)
    return values


def _plain(node: yaml.ScalarNode) -> Any:
    """Return the value of a scalar without quotes."""
    text = node.value
    if text in _NOTHING:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _WHOLE.fullmatch(text):
        if len(text) > LONGEST:
            raise RecipeError(f"line {node.start_mark.line + 1}: a number of {len(text):,} digits is too long")
        return int(text)
    if _DECIMAL.fullmatch(text):
        return float(text)
    if _ENDLESS.fullmatch(text):
        return float(text.replace(".", ""))
    return text
