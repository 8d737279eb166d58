"""Messages for mistakes in a recipe: the place, the accepted values, and the nearest match; differences of tables."""

import difflib
import re
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pydantic
from pydantic import BaseModel

PLAIN = {"int", "float", "str", "bool"}
WANTED = {
    "string_type": "a text", "int_type": "a whole number", "int_from_float": "a whole number",
    "float_type": "a number", "bool_type": "true or false", "list_type": "a list", "tuple_type": "a list",
    "dict_type": "a table", "model_type": "a table", "model_attributes_type": "a table", "dataclass_type": "a table",
    "needs_quotes": "a text", "finite_number": "a finite number", "none_required": "null", "set_type": "a list",
}  # fmt: skip
LIMITS = {
    "greater_than": "a number greater than {gt:,}", "greater_than_equal": "a number of at least {ge:,}",
    "less_than": "a number less than {lt:,}", "less_than_equal": "a number of at most {le:,}",
    "multiple_of": "a multiple of {multiple_of}",
}  # fmt: skip
MOST = 60  # characters of a wrong value that are repeated
SWITCHES = {"yes": True, "on": True, "y": True, "1": True, "no": False, "off": False, "n": False, "0": False}
SWITCHES |= {"true": True, "false": False}


def nearest(word: str, accepted: Iterable[str]) -> str:
    """Return '; did you mean X?' if an accepted word is near, and the list of accepted words."""
    accepted = list(accepted)
    close = difflib.get_close_matches(word, accepted, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint} (accepted: {', '.join(accepted) or 'none'})"


def unknown_keys(table: type[BaseModel], given: Any, place: str) -> Iterable[str]:
    """Yield a message for every key of `given`, at any depth, that the tables do not have."""
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
    """Yield the tables in a value by its annotation: the value itself, values of a dict, items of a list.

    Each comes with its model and its place, relative to the value.
    """
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


def sentences(error: pydantic.ValidationError, tables: Any) -> list[str]:
    """Return the faults of `tables`, a line per place: what was expected, the value, and a hint."""
    faults: dict[str, list[Any]] = {}
    for fault in error.errors(include_url=False):
        faults.setdefault(".".join(_place(fault["loc"], tables)), []).append(fault)
    # a value may be validated as a number or as a list; the fault at the deeper place is more precise
    inner = [place for place in faults if not any(other.startswith(f"{place}.") for other in faults)]
    return [_sentence(place, faults[place]) for place in inner]


def _place(loc: tuple[int | str, ...], tables: Any) -> Iterable[str]:
    """Yield the keys and indices of a fault's place, without pydantic's names for the types of a union."""
    here = tables
    for step in loc:
        try:
            here = here[step]
        except (LookupError, TypeError):  # a missing key, or no key
            if _is_type_name(step):
                continue
        yield str(step)


def _is_type_name(step: int | str) -> bool:
    """Return whether this is pydantic's name for a type, such as list[str] or function-before[_text(), str]."""
    return isinstance(step, str) and (step in PLAIN or bool(re.search(r"[\[(-]", step)))


def _sentence(place: str, faults: list[Any]) -> str:
    last, given = faults[-1], faults[-1]["input"]
    kinds = {fault["type"] for fault in faults}
    if "missing" in kinds:
        return f"{place}: is required"
    refused = [fault["msg"].removeprefix("Value error, ") for fault in faults if fault["type"] == "value_error"]
    if refused:
        return f"{place}: {refused[0]}" if place else refused[0]
    if last["type"] in ("too_short", "too_long"):
        least = last["ctx"].get("min_length") or 0
        most = last["ctx"].get("max_length")
        wanted = f"at least {least}" if last["type"] == "too_short" else f"at most {most}"
        return f"{place}: expected {wanted} {'entry' if (most or least) == 1 else 'entries'}, got {_shown(given)}"
    wanted = list(dict.fromkeys(_wanted(fault) for fault in faults))
    return f"{place}: expected {' or '.join(wanted)}, got {_shown(given)}{_hint(kinds, given)}"


def _wanted(fault: Any) -> str:
    if fault["type"] in LIMITS:
        return LIMITS[fault["type"]].format(**fault["ctx"])
    if fault["type"] in ("literal_error", "enum"):
        return str(fault["ctx"]["expected"])
    return WANTED.get(fault["type"]) or fault["msg"].removeprefix("Input should be ").removeprefix("a valid ")


def _shown(value: Any) -> str:
    """Return a value as it is written in a recipe, cut if it is long."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list | tuple | Mapping):
        kind = "table" if isinstance(value, Mapping) else "list"
        return f"a {kind} of {len(value)}" if value else f"an empty {kind}"
    if isinstance(value, str):
        return f"the text {value[:MOST]!r}" + "..." * (len(value) > MOST)
    if isinstance(value, int) and abs(value) >= 10**MOST:
        return f"a number of more than {MOST} digits"
    return f"{value!r}"[:MOST]


def _hint(kinds: set[str], given: Any) -> str:
    """Return what to write instead, or "" if that is not known."""
    if "needs_quotes" in kinds:
        text = str(given).lower() if isinstance(given, bool) else str(given)
        return f"""; put it in quotes: "{text}", on a command line '"{text}"'"""
    if given is None and "list_type" in kinds:
        return "; leave the key out, or write [], for none"
    if given is None:
        return "; leave the key out for none"
    if not isinstance(given, str):
        return ""
    numbers = kinds & {"int_type", "int_from_float", "float_type"}
    if numbers and (number := _as_decimal(given)) is not None:
        return f"; write {number}"
    if "bool_type" in kinds and given.lower() in SWITCHES:
        return f"; write {str(SWITCHES[given.lower()]).lower()}"
    return ""


def _as_decimal(text: str) -> str | None:
    """Return the recipe's notation of a number with leading zeros, a plus, underscores, another base or quotes."""
    plain = text.strip().replace("_", "").removeprefix("+")
    if re.fullmatch(r"0[xXoObB][0-9a-fA-F]{1,15}", plain):
        try:
            return str(int(plain, 0))
        except ValueError:
            return None
    found = re.fullmatch(r"(-?)0*([0-9]{1,30}(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,3})?)", plain)
    return f"{found[1]}{found[2]}" if found else None


def table_differences(place: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the differences of two nested tables: dotted name and both values, with None for a missing value."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            yield from table_differences(f"{place}.{key}".lstrip("."), one.get(key), other.get(key))
    elif one != other:
        yield place, one, other
