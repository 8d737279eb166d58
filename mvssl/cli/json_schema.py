"""The JSON schema of recipes, for editors: the tables, and the options of every built-in view and objective."""

from typing import Any

from mvssl.objectives import OBJECTIVES
from mvssl.recipe import Recipe
from mvssl.recipe.options import options_of
from mvssl.views import VIEWS


def build_json_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe, with the options of the built-in views and objectives by class."""
    schema_of_recipe = Recipe.model_json_schema()
    for kind, classes in (("ViewConfig", VIEWS), ("ObjectiveConfig", OBJECTIVES)):
        options = {name: options_of(made).model_json_schema() for name, made in classes.items()}
        schema_of_recipe["$defs"][kind]["anyOf"] = [
            {"title": name, "properties": {"name": {"const": name}, **table.get("properties", {})}}
            for name, table in options.items()
        ]
        for table in options.values():
            schema_of_recipe["$defs"].update(table.get("$defs", {}))
    return schema_of_recipe
