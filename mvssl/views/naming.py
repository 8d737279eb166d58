"""What weights and draws are called: a view `a` with `count: 2` is drawn as a_0 and a_1, with `count: 1` as a."""

from collections.abc import Container


def drawn(view: str, count: int) -> list[str]:
    """The names under which a view of the recipe is drawn."""
    return [view] if count == 1 else [f"{view}_{number}" for number in range(count)]


def first_drawn(view: str, known: Container[str]) -> str | None:
    """The view of that name among `known`, or its first draw, or None."""
    return next((name for name in (view, f"{view}_0") if name in known), None)


def base_by_name(view: str, known: Container[str]) -> str:
    """The view that a drawn name seems to belong to: a of a_1 if there is an a_0, else the name itself."""
    base, _, number = view.rpartition("_")
    return base if number.isdecimal() and f"{base}_0" in known else view
