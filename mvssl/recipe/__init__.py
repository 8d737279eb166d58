"""Recipes: the settings of a run as typed tables, read from YAML and overrides.

in   a file, or Python dicts, and overrides such as `optim.lr=1e-3`
out  a checked `Recipe`; every mistake is a `RecipeError` with its place and the accepted values
"""

from mvssl.recipe.loading import load_recipe, parse_recipe, to_yaml, with_overrides
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
)

__all__ = [
    "Column", "Config", "Data", "EncoderConfig", "Evaluate", "Finetune", "ObjectiveConfig", "Optim", "Recipe", "Train",
    "ViewConfig", "load_recipe", "parse_recipe", "to_yaml", "with_overrides",
]  # fmt: skip
