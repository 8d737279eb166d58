"""Recipes as plain tables: safe YAML in which 3e-4 is a number, and dotted overrides."""

import re
from typing import Any

import yaml

from mvssl.errors import RecipeError


class _Loader(yaml.SafeLoader):
    """YAML in which 3e-4 is a number and aliases, which can blow up, are refused."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise RecipeError(
                f"line {self.peek_event().start_mark.line + 1}: aliases (*name) are not accepted in recipes"
            )
        return super().compose_node(parent, index)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def parse_yaml(text: str, where: str) -> Any:
    """YAML as data only; errors name `where` and the line."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader: builds no Python objects
    except RecursionError:
        raise RecipeError(f"{where}: nested too deeply") from None
    except yaml.YAMLError as error:
        raise RecipeError(
            f"{where}: not valid YAML: {str(error).splitlines()[0]} {getattr(error, 'problem_mark', '') or ''}".strip()
        ) from None


def override(tables: dict[str, Any], given: str) -> None:
    """Set `table.key=value` in plain tables, making tables on the way. Raises `RecipeError`."""
    dotted, equals, value = given.partition("=")
    if not equals or not dotted:
        raise RecipeError(f"{given!r} is not an override; write table.key=value, for example optim.lr=1e-3")
    *parents, last = dotted.split(".")
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
    here[place] = parse_yaml(value, given)


def _inside(table: Any, name: str, dotted: str) -> Any:
    if isinstance(table, dict):
        return table.get(name)
    if not name.isdigit() or int(name) >= len(table):
        raise RecipeError(f"{dotted}: a list of {len(table)} has the places 0 to {len(table) - 1}, not {name!r}")
    return table[int(name)]
