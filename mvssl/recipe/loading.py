"""Read a recipe: a YAML file or plain tables, changed by dotted overrides, checked before anything is built.

in   a YAML file, or Python dicts, and `table.key=value` pairs
out  a `Recipe`; or a `RecipeError` that names the place, the accepted values and the nearest match
"""

import codecs
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pydantic

from mvssl.errors import RecipeError
from mvssl.recipe.consistency import find_inconsistencies
from mvssl.recipe.messages import sentences, unknown_keys
from mvssl.recipe.schema import Recipe, expand
from mvssl.recipe.yaml_text import LARGEST, as_yaml, override_all, parse_yaml


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Return the recipe in a file, changed by `table.key=value` overrides. Raise `RecipeError`.

    If two overrides set the same key, the later one wins, and a log message reports it.
    """
    overrides = [overrides] if isinstance(overrides, str) else overrides
    tables = parse_yaml(_text(path), str(path))
    if not isinstance(tables, dict):
        what = "is empty" if tables is None else "is no table"
        raise RecipeError(f"{path} {what}: a recipe has the tables {', '.join(Recipe.model_fields)}")
    for message in override_all(tables, overrides):
        tell(message)
    return parse_recipe(tables, str(path))


def with_overrides(recipe: Recipe, overrides: Iterable[str] = (), where: str = "recipe") -> Recipe:
    """Return the recipe changed by `table.key=value` overrides, as in `load_recipe`. Raise `RecipeError`."""
    overrides = [overrides] if isinstance(overrides, str) else list(overrides)
    if not overrides:
        return recipe
    tables = parse_yaml(to_yaml(recipe), where)
    for message in override_all(tables, overrides):
        tell(message)
    return parse_recipe(tables, where)


def tell(text: str) -> None:
    """Log a message for the user, in the main process only."""
    if os.environ.get("RANK", "0") == "0":
        logging.getLogger("mvssl").warning(text)


def _text(path: str | Path) -> str:
    """Return a file as text: UTF-8, or the encoding of its byte order mark. Raise `RecipeError`."""
    try:
        with open(path, "rb") as file:
            content = file.read(4 * LARGEST + 1)
    except (OSError, ValueError) as error:
        raise RecipeError(f"recipe {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > 4 * LARGEST:
        raise RecipeError(f"recipe {path} is larger than {LARGEST:,} characters")
    try:
        return content.decode(
            "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
        )
    except UnicodeDecodeError:
        raise RecipeError(f"recipe {path} cannot be read: it is not text; save it as UTF-8") from None


def parse_recipe(tables: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Check tables and return the `Recipe`. Raise a `RecipeError` that lists every fault."""
    faults = list(unknown_keys(Recipe, expand(tables), ""))
    if not faults:
        try:
            recipe = Recipe.model_validate(tables)
        except pydantic.ValidationError as error:
            faults = sentences(error, expand(tables))
        else:
            faults = list(find_inconsistencies(recipe))
            if not faults:
                return recipe
    raise RecipeError("\n".join(f"{where}: {fault}" for fault in faults))


def to_yaml(recipe: Recipe) -> str:
    """Return the recipe as YAML with every value, defaults included, as the run folder keeps it."""
    return as_yaml(recipe.model_dump(mode="json", by_alias=True))
