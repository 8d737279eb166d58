"""How a mistake in a recipe is told: its place, what is accepted, and the nearest match."""

import difflib
import re
import typing
from collections.abc import Iterable, Mapping
from typing import Any

import pydantic
from pydantic import BaseModel


def nearest(word: str, accepted: Iterable[str]) -> str:
    """'; did you mean X?' where something accepted is near, and the list of what is."""
    accepted = list(accepted)
    close = difflib.get_close_matches(word, accepted, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (accepted: {', '.join(accepted) or 'none'})"


def unknown_keys(table: type[BaseModel], given: Any, place: str) -> Iterable[str]:
    """Every key of `given`, at any depth, that the tables do not have."""
    if not isinstance(given, Mapping):
        return
    fields = {field.alias or name: field.annotation for name, field in table.model_fields.items()}
    for key, value in given.items():
        if key in fields:
            for inner, item, step in _tables_in(fields[key], value):
                yield from unknown_keys(inner, item, f"{place}{key}.{step}")
        elif table.model_config.get("extra") != "allow":
            yield f"{place}{key}: unknown key{nearest(str(key), fields)}"


def _tables_in(annotation: Any, value: Any) -> Iterable[tuple[type[BaseModel], Any, str]]:
    """The tables inside a value, as its annotation has them: itself, values of a dict, items of a list."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, value, ""
    elif origin is dict and isinstance(value, Mapping):
        for key, item in value.items():
            yield from ((table, given, f"{key}.{step}") for table, given, step in _tables_in(inside[1], item))
    elif origin is list and isinstance(value, list):
        for number, item in enumerate(value):
            yield from ((table, given, f"{number}.{step}") for table, given, step in _tables_in(inside[0], item))
    elif origin is not dict and origin is not list:
        for option in inside:
            yield from _tables_in(option, value)


def sentences(error: pydantic.ValidationError) -> list[str]:
    lines = []
    for fault in error.errors():
        # pydantic adds the branch of a union ("constrained-int") to the place; the user wrote no such key
        place = ".".join(str(part) for part in fault["loc"] if not re.search(r"[-\[(]", str(part)))
        given = "" if fault["type"] in ("missing", "value_error") else f", not {fault['input']!r}"
        said = fault["msg"].removeprefix("Value error, ").removeprefix("Input ")
        lines.append(f"{place}: {'is required' if fault['type'] == 'missing' else said}{given}")
    return list(dict.fromkeys(lines))
