"""How counts and foreign texts are said to people."""

import re


def counted(n: int, one: str, many: str = "") -> str:
    """1 sample, 1,024 samples; `many` where it is not `one` and an s."""
    return f"{n:,} {one if n == 1 else many or f'{one}s'}"


def printable(text: str) -> str:
    """The text with control characters escaped, which would steer a terminal; line breaks stay."""
    return re.sub(r"[^\n]", lambda one: one[0] if one[0].isprintable() else _escaped(one[0]), text)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
