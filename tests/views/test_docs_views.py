"""docs/views.md names every option of every built-in view."""

from pathlib import Path

import pytest

from mvssl.recipe.options import options_of
from mvssl.views import VIEWS

PAGE = (Path(__file__).parents[2] / "docs" / "views.md").read_text()


def section(name: str) -> str:
    if name == "image":
        return PAGE[: PAGE.index("## Signals and vectors")]
    return PAGE.partition(f"`name: {name}` takes")[2].partition("`name: ")[0]


@pytest.mark.parametrize("name", VIEWS)
def test_the_page_names_every_option_of_a_view(name):
    assert [option for option in options_of(VIEWS[name]).model_fields if f"`{option}`" not in section(name)] == []
