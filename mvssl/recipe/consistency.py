"""Check that the tables of a recipe fit each other: views and columns, encoders and views.

in   a `Recipe` whose single tables are valid
out  a message for each fault, with its place
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mvssl.recipe.messages import nearest
from mvssl.text import split_names

if TYPE_CHECKING:
    from mvssl.recipe import Recipe


def find_inconsistencies(recipe: "Recipe") -> Iterable[str]:
    """Yield a message for each fault between tables."""
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
