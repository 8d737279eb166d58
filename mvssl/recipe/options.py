"""Find a class by the name in a recipe, and build it with options that its own signature checks.

The keyword-only arguments of a class are its options, with names, types and defaults. No class needs a config class.
"""

import importlib
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

import pydantic
from pydantic import BaseModel, ConfigDict

from mvssl.errors import RecipeError
from mvssl.recipe.messages import nearest, sentences, unknown_keys
from mvssl.recipe.strict import Strict


def find_class(name: str, builtin: Mapping[str, type], where: str) -> type:
    """Return the class of a name: one of `builtin`, or an import path package.module:Class. Raise `RecipeError`."""
    if name in builtin:
        return builtin[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise RecipeError(f"{where}: no {name!r}{nearest(name, [*builtin, 'package.module:Class'])}")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(f"{where}: {name!r} cannot be imported: {error}") from None
    if not isinstance(found, type):
        raise RecipeError(f"{where}: {name!r} is a {type(found).__name__}, not a class")
    return found


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
        found = table.model_validate(dict(options))
    except pydantic.ValidationError as error:
        raise RecipeError("\n".join(f"{where}.{line}" for line in sentences(error, dict(options)))) from None
    return {name: getattr(found, name) for name in options}


def construct(made: type, options: Mapping[str, Any], where: str, *arguments: Any) -> Any:
    """Return `made(*arguments, **options)`, with the options checked by its signature. Raise `RecipeError`."""
    given = checked(options_of(made), options, where)
    try:
        return made(*arguments, **given)
    except (RuntimeError, TypeError) as error:
        if not re.search("memory|overflow", str(error), re.IGNORECASE):  # torch's words for too large tensors
            raise
        raise RecipeError(f"{where}: there is not enough memory to build it with {dict(options)}") from None
