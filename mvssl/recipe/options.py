"""Strict tables; and classes by their name in a recipe, with options that their own signature checks.

in   a class of the package or of a user, and its options as plain values
out  an instance; or a `RecipeError` with the place, the accepted values and the nearest match

The keyword-only arguments of a class are its options, with names, types and defaults. No class needs a config class.
A strict table refuses what pydantic would convert silently: a boolean or a text is no number, and a fraction is no
whole number. Three conversions stay: a list to a tuple, `1e3` to the whole number 1000, and a whole number to a text.
"""

import importlib
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

import pydantic
from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError, core_schema

from mvssl.errors import RecipeError
from mvssl.recipe.messages import nearest, sentences, unknown_keys

# left to pydantic: keys of a dict, which are texts in YAML, and entries that are no schema
LEFT = {"metadata", "serialization", "default", "keys_schema", "cls", "config"}


def _strict(schema: Any, inside: bool = True) -> Any:
    """Return the schema with strict numbers and booleans; models inside it make their own schema strict."""
    if isinstance(schema, list):
        return [_strict(part, inside) for part in schema]
    if not isinstance(schema, dict) or (inside and schema.get("type") == "model"):
        return schema
    inside = inside or schema.get("type") == "model"
    parts = {name: part if name in LEFT else _strict(part, inside) for name, part in schema.items()}
    match schema.get("type"):
        case "bool" | "float":
            return {**parts, "strict": True}
        case "int":
            return core_schema.no_info_before_validator_function(_whole, {**parts, "strict": True})  # pyright: ignore
        case "str":
            return core_schema.no_info_before_validator_function(_text, parts)  # pyright: ignore
    return parts


def _whole(value: Any) -> Any:
    """Return a whole number for 1e3; other values stay, and pydantic refuses 1.5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: Any) -> Any:
    """Return a text for a whole number such as 2024. Refuse 1.10, because YAML loses its last digit."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, bool | float):
        raise PydanticCustomError("needs_quotes", "text in quotes")
    if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
        raise PydanticCustomError("odd_text", "text without zero bytes and half characters")
    return value


class Strict(BaseModel):
    """A pydantic model that does not convert between numbers, booleans and texts."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return _strict(handler(source), inside=False)


def find_class(name: str, builtin: Mapping[str, type], where: str) -> type:
    """Return the class of a name: one of `builtin`, or an import path package.module:Class. Raise `RecipeError`."""
    if name in builtin:
        return builtin[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise RecipeError(f"{where}: no {name!r}{nearest(name, [*builtin, 'package.module:Class'])}")
    try:
        made = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(f"{where}: {name!r} cannot be imported: {error}") from None
    if not isinstance(made, type):
        raise RecipeError(f"{where}: {name!r} is a {type(made).__name__}, not a class")
    return made


class Options(Strict):
    """Base of the tables that `options_of` makes: the options of a class or a function."""

    model_config = ConfigDict(
        extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False, protected_namespaces=()
    )


def options_of(made: Callable[..., Any]) -> type[BaseModel]:
    """Return the keyword-only arguments of a constructor or a function as a table of names, types and defaults."""
    hints = typing.get_type_hints(made.__init__ if isinstance(made, type) else made, include_extras=True)
    keywords = [p for p in inspect.signature(made).parameters.values() if p.kind is p.KEYWORD_ONLY]
    fields = {p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default) for p in keywords}
    return pydantic.create_model(made.__name__, __base__=Options, **fields)  # pyright: ignore[reportCallIssue, reportArgumentType]


def checked(table: type[BaseModel], options: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the given `options`, converted to their types. Raise a `RecipeError` that lists all that do not fit."""
    faults = list(unknown_keys(table, options, f"{where}."))
    if faults:
        raise RecipeError("\n".join(faults))
    try:
        valid = table.model_validate(dict(options))
    except pydantic.ValidationError as error:
        raise RecipeError("\n".join(f"{where}.{line}" for line in sentences(error, dict(options)))) from None
    return {name: getattr(valid, name) for name in options}


def construct(made: type, options: Mapping[str, Any], where: str, *arguments: Any) -> Any:
    """Return `made(*arguments, **options)`, with the options checked by its signature. Raise `RecipeError`."""
    given = checked(options_of(made), options, where)
    try:
        return made(*arguments, **given)
    except KeyError as error:
        taken = re.fullmatch(r"attribute '(\w+)' already exists", str(error.args[0]) if error.args else "")
        if not taken:
            raise
        raise RecipeError(
            f"{where}: {made.__name__}.{taken[1]} is a module, parameter or buffer, but mvssl has a member of that "
            f"name; rename it, for example to _{taken[1]}"
        ) from None
    except (RuntimeError, TypeError) as error:
        if not re.search("memory|overflow", str(error), re.IGNORECASE):  # torch's words for too large tensors
            raise
        raise RecipeError(f"{where}: there is not enough memory to build it with {dict(options)}") from None
