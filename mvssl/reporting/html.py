"""HTML by construction: every text is escaped unless an element was made of it.

in   `el("p", "a < b", class_="note")`
out  `Html`, a string that may stand in a page as it is
"""

import html
from collections.abc import Iterable
from typing import Any

VOID = {"meta", "br", "hr", "img"}


class Html(str):
    """Text that is markup already. Only `el` and `join` make it, and whoever writes markup by hand."""

    __slots__ = ()


def el(tag: str, /, *children: Any, **attributes: Any) -> Html:
    """An element; children that are no `Html` are escaped, None is left out, lists are joined.

    Attributes: `class_` is class, `stroke_width` is stroke-width, True is the bare name, None and False leave it out.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items() if value not in (None, False))
    if tag in VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{join(children)}</{tag}>")


def _attribute(key: str, value: Any) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'


def join(parts: Iterable[Any], between: str = "") -> Html:
    """Parts one after another, escaped where they are no `Html`."""
    flat = (join(part) if isinstance(part, list | tuple) else escape(part) for part in parts if part is not None)
    return Html(between.join(flat))


def escape(part: Any) -> Html:
    """Any text as markup that shows it."""
    return part if isinstance(part, Html) else Html(html.escape(str(part)))
