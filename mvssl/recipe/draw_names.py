"""Names of the draws of a view: a_0 and a_1 for a view `a` with `count: 2`, and a with `count: 1`."""

from collections.abc import Container


def list_draw_names(view: str, count: int) -> list[str]:
    """Return the names of the draws of a view of the recipe."""
    return [view] if count == 1 else [f"{view}_{number}" for number in range(count)]


def first_draw_name(view: str, known: Container[str]) -> str | None:
    """Return the view's own name if it is in `known`, else its first draw, else None."""
    return next((name for name in (view, f"{view}_0") if name in known), None)


def view_of_draw(name: str, known: Container[str]) -> str:
    """Return the view of a draw by its name alone: a for a_1 if `known` has an a_0, else the name itself."""
    view, _, number = name.rpartition("_")
    return view if number.isdecimal() and f"{view}_0" in known else name
