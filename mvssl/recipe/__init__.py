"""Recipes: YAML and dotted overrides in, typed tables out.

in   a file, or Python dicts, and overrides such as `optim.lr=1e-3`
out  a checked `Recipe`; every mistake is a `RecipeError` with its place and the accepted values
"""

from mvssl.recipe.loading import load_recipe, parse_recipe, tell, to_yaml, with_overrides
from mvssl.recipe.schema import (
    Column,
    Config,
    Data,
    EncoderConfig,
    Evaluate,
    Finetune,
    ObjectiveConfig,
    Optim,
    Recipe,
    Train,
    ViewConfig,
    expand,
)

__all__ = [
    "Column",
    "Config",
    "Data",
    "EncoderConfig",
    "Evaluate",
    "Finetune",
    "ObjectiveConfig",
    "Optim",
    "Recipe",
    "Train",
    "ViewConfig",
    "expand",
    "load_recipe",
    "parse_recipe",
    "tell",
    "to_yaml",
    "with_overrides",
]  # fmt: skip
