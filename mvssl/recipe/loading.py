"""Read a recipe: a YAML file or plain tables, changed by dotted overrides, checked before anything is built.

in   a YAML file, or Python dicts, and `table.key=value` pairs
out  a `Recipe`; or a `RecipeError` that names the place, the accepted values and the nearest match
"""

import codecs
import logging
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pydantic

from mvssl.errors import RecipeError
from mvssl.recipe.messages import nearest, sentences, unknown_keys
from mvssl.recipe.schema import Recipe, expand
from mvssl.recipe.yaml_text import LARGEST, as_yaml, parse_yaml
from mvssl.text import split_names

SHOWN = 80  # characters of an override that are repeated
RIVALS = {"train.steps": "train.epochs", "train.epochs": "train.steps"}  # two keys of which only one may be set


def load_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Return the recipe in a file, changed by `table.key=value` overrides. Raise `RecipeError`.

    If two overrides set the same key, the later one wins, and a log message reports it.
    """
    tables = parse_yaml(_read_text(path), str(path))
    if not isinstance(tables, dict):
        what = "is empty" if tables is None else "is no table"
        raise RecipeError(f"{path} {what}: a recipe has the tables {', '.join(Recipe.model_fields)}")
    return _parse_overridden(tables, overrides, str(path))


def with_overrides(recipe: Recipe, overrides: Iterable[str] = (), where: str = "recipe") -> Recipe:
    """Return the recipe changed by `table.key=value` overrides, as in `load_recipe`. Raise `RecipeError`."""
    return _parse_overridden(parse_yaml(to_yaml(recipe), where), overrides, where) if overrides else recipe


def parse_recipe(tables: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Check tables and return the `Recipe`. Raise a `RecipeError` that lists every fault."""
    faults = list(unknown_keys(Recipe, expand(tables), ""))
    if not faults:
        try:
            recipe = Recipe.model_validate(tables)
        except pydantic.ValidationError as error:
            faults = sentences(error, expand(tables))
        else:
            faults = list(_find_inconsistencies(recipe))
            if not faults:
                return recipe
    raise RecipeError("\n".join(f"{where}: {fault}" for fault in faults))


def _find_inconsistencies(recipe: Recipe) -> Iterable[str]:
    """Yield a message for each view, column or encoder that does not fit the others, with its place."""
    for name, view in recipe.views.items():
        if not name.isidentifier():
            yield f"views.{name}: a view's name consists of letters, digits and _, and begins with no digit"
        if recipe.data.columns and view.source not in recipe.data.columns:
            yield f"views.{name}.from: no column {view.source!r}{nearest(view.source, recipe.data.columns)}"
        column = recipe.data.columns.get(view.source)
        if column and column.rate and view.options.get("rate", column.rate) != column.rate:
            yield f"views.{name}.rate: {view.options['rate']}, but the rate of column {view.source} is {column.rate}"
        if column and column.size and view.options.get("nodata") is not None:
            yield (
                f"views.{name}.nodata: column {view.source} has a size, and resizing mixes nodata pixels with others; "
                "give the size to the view instead"
            )
        if view.geometry is not None and view.geometry not in recipe.views:
            yield f"views.{name}.geometry: no view {view.geometry!r}{nearest(view.geometry, recipe.views)}"
    listed = [view for group in recipe.encoder for view in split_names(group)]
    for name in listed:
        if name not in recipe.views:
            yield f"encoder.{name}: no view {name!r}{nearest(name, recipe.views)}"
    for name in recipe.views:
        if listed.count(name) != 1:
            yield f"encoder: view {name!r} needs exactly one encoder; it has {listed.count(name)}"


def to_yaml(recipe: Recipe) -> str:
    """Return the recipe as YAML with every value, defaults included, as the run folder keeps it."""
    return as_yaml(recipe.model_dump(mode="json", by_alias=True))


def _read_text(path: str | Path) -> str:
    """Return a file as text: UTF-8, or the encoding of its byte order mark. Raise `RecipeError`."""
    try:
        with open(path, "rb") as file:
            content = file.read(4 * LARGEST + 1)
    except (OSError, ValueError) as error:
        raise RecipeError(f"recipe {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(content) > 4 * LARGEST:
        raise RecipeError(f"recipe {path} is larger than {LARGEST:,} characters")
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise RecipeError(f"recipe {path} cannot be read: it is not text; save it as UTF-8") from None


def _parse_overridden(tables: dict[str, Any], overrides: Iterable[str], where: str) -> Recipe:
    """Change the tables by overrides and log, in the main process, which of them have no effect. Return the recipe."""
    messages = override_all(tables, [overrides] if isinstance(overrides, str) else overrides)
    if os.environ.get("RANK", "0") == "0":
        for message in messages:
            logging.getLogger("mvssl").warning(message)
    return parse_recipe(tables, where)


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
        place = _key_of(here, name, dotted)
        if isinstance(here, dict) and here.get(place) is None:
            here[place] = {}
        here = here[place]
        if not isinstance(here, dict | list):
            raise RecipeError(f"{dotted}: {'.'.join(parents[: depth + 1])} is a value, not a table")
    place = _key_of(here, last, dotted)
    before = here[place] if isinstance(here, list) else here.get(place)
    here[place] = _parse_value(value, given)
    return dotted, before


def _key_of(table: dict[str, Any] | list[Any], name: str, dotted: str) -> Any:
    """Return `name` itself for a table, and as an index for a list. Raise `RecipeError` for an unknown index."""
    if isinstance(table, dict):
        return name
    if not (name.isascii() and name.isdigit() and len(name) < 10) or int(name) >= len(table):
        places = f"the places 0 to {len(table) - 1}" if table else "no places"
        raise RecipeError(f"{dotted}: a list of {len(table)} has {places}, not {name!r}")
    return int(name)


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
