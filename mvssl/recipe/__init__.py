"""Recipes: YAML and dotted overrides in, typed tables out.

in   a file, or Python dicts, and overrides such as `optim.lr=1e-3`
out  a checked `Recipe`; every mistake is a `RecipeError` with its place and the accepted values
"""

from mvssl.recipe.loading import load_recipe, parse_recipe, tell, to_yaml, with_overrides
from mvssl.recipe.schema import (
    Column,
    Data,
    Encoder,
    Evaluate,
    Finetune,
    Objective,
    Optim,
    Recipe,
    Table,
    Train,
    View,
    expand,
)

__all__ = [
    "Column", "Data", "Encoder", "Evaluate", "Finetune", "Objective", "Optim", "Recipe", "Table", "Train", "View",
    "expand", "load_recipe", "parse_recipe", "tell", "to_yaml", "with_overrides",
]  # fmt: skip
