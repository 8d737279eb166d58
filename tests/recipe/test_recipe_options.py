"""The signature of a class is the schema of its options."""

import pytest

from mvssl.errors import RecipeError
from mvssl.recipe.options import construct


def test_options_of_a_class_are_as_strict_as_the_tables():
    class Made:
        def __init__(
            self, *, size: int | None = 3, pair: tuple[int, float] = (1, 2.0), name: str = "", on: bool = False
        ):
            self.given = (size, pair, name, on)

    assert construct(Made, {"size": 1e3, "pair": [1, 2], "name": 7, "on": True}, "x").given == (
        1000,
        (1, 2.0),
        "7",
        True,
    )
    for wrong in (
        {"size": True},
        {"size": "3"},
        {"pair": [True, 1]},
        {"pair": [1]},
        {"name": True},
        {"on": 1},
        {"on": "yes"},
    ):
        with pytest.raises(RecipeError, match=rf"^x\.{next(iter(wrong))}"):
            construct(Made, wrong, "x")


def test_a_signature_is_a_schema():
    class Made:
        def __init__(self, shape: int, *, size: int = 3, mode: str | None = None):
            self.given = (shape, size, mode)

    assert construct(Made, {"size": 4}, "views.a", 1).given == (1, 4, None)
    with pytest.raises(RecipeError, match=r"views\.a\.siz: unknown key; did you mean 'size'"):
        construct(Made, {"siz": 4}, "views.a", 1)
    with pytest.raises(RecipeError, match=r"views\.a\.size: expected a whole number"):
        construct(Made, {"size": "x"}, "views.a", 1)
