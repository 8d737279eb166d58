"""Recipes as plain dicts: YAML text and dotted overrides.

in   YAML text; overrides `table.key=value`
out  dicts with text keys, lists, texts, numbers, true, false, None; or a `RecipeError` that names the line

Only true and false are booleans, and only decimal digits are numbers (YAML 1.2, core schema). So `on`, `no`, `010`,
`0x10`, `1_000`, `1:30` and `2024-01-01` are texts, and a key that needs a number refuses them. A key is always text.
"""

import contextlib
import json
import re
import shlex
from collections.abc import Iterable
from typing import Any

import yaml

from mvssl.errors import RecipeError

LARGEST = 1_000_000  # characters of a recipe
DEEPEST = 32  # tables and lists inside each other
LONGEST = 100  # digits of a whole number
SHOWN = 80  # characters of an override that are repeated
RIVALS = {"train.steps": "train.epochs", "train.epochs": "train.steps"}  # two keys of which only one may be set

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
    found = {}
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
        found[key.value] = _value(value)
    return found


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


def override_all(tables: dict[str, Any], overrides: Iterable[str]) -> list[str]:
    """Set each `table.key=value` in plain dicts, in order, and add missing tables. Raise `RecipeError`.

    If two overrides set the same key, the later one wins. Return a message for each override without effect.
    """
    messages: list[str] = []
    earlier: dict[str, str] = {}  # dotted key -> the override that set it
    for given in overrides:
        dotted, replaced = _override(tables, given)
        for other, word in earlier.items():
            if _is_inside(other, dotted):
                messages.append(f"{word} is replaced by the later {given}")
            elif _is_inside(dotted, other) and replaced is not None:
                messages.append(f"{dotted[len(other) + 1 :]} of {word} is replaced by the later {given}")
        earlier = {other: word for other, word in earlier.items() if not _is_inside(other, dotted)} | {dotted: given}
        if dotted in RIVALS:
            messages += _drop_rival(tables, dotted, given, earlier)
    return messages


def _drop_rival(tables: dict[str, Any], dotted: str, given: str, earlier: dict[str, str]) -> list[str]:
    """Remove the rival of the key that `given` has set. Return the messages about it."""
    (table, _, now), key = dotted.partition("."), RIVALS[dotted].partition(".")[2]
    value = tables[table].get(key)
    if tables[table][now] is None or value is None:
        return []
    del tables[table][key]
    word = earlier.pop(RIVALS[dotted], f"{RIVALS[dotted]}={value} of the recipe")
    return [f"{word} is replaced by {given} of the command line"]


def _is_inside(dotted: str, table: str) -> bool:
    return dotted == table or dotted.startswith(f"{table}.")


def _override(tables: dict[str, Any], given: str) -> tuple[str, Any]:
    """Set one `table.key=value`. Return the dotted key and the earlier value."""
    dotted, equals, value = given.partition("=")
    *parents, last = dotted.split(".")
    if not equals or not all((*parents, last)):
        raise RecipeError(f"{given!r} is not an override; write table.key=value, for example optim.lr=1e-3")
    here: Any = tables
    for depth, name in enumerate(parents):
        if isinstance(here, dict) and here.get(name) is None:
            here[name] = {}
        here = _inside(here, name, dotted)
        if not isinstance(here, dict | list):
            raise RecipeError(f"{dotted}: {'.'.join(parents[: depth + 1])} is a value, not a table")
    if isinstance(here, list):
        _inside(here, last, dotted)
    place: Any = int(last) if isinstance(here, list) else last
    before = here[place] if isinstance(here, list) else here.get(place)
    here[place] = _parse_value(value, given)
    return dotted, before


def _parse_value(value: str, given: str) -> Any:
    """Return the value of an override. Raise a `RecipeError` that says how to quote it."""
    quoted = f"; put the value in quotes if it is a text: '{given.partition('=')[0]}=\"...\"'"
    shown = given[:SHOWN] + "..." * (len(given) > SHOWN)
    if re.search(r"(^|\s)#", value) and not re.search("[\"']", value):
        raise RecipeError(f"{shown}: the text after # would be a comment{quoted}")
    try:
        return parse_yaml(value, shown)
    except RecipeError as error:
        raise RecipeError(f"{error}{quoted}") from None


def _inside(table: Any, name: str, dotted: str) -> Any:
    """Return the entry `name` of a table, or the item of a list with that index. Raise `RecipeError`."""
    if isinstance(table, dict):
        return table.get(name)
    if not (name.isascii() and name.isdigit() and len(name) < 10) or int(name) >= len(table):
        places = f"the places 0 to {len(table) - 1}" if table else "no places"
        raise RecipeError(f"{dotted}: a list of {len(table)} has {places}, not {name!r}")
    return table[int(name)]
