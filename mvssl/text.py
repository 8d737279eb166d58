"""Format counts, print warnings, and escape text that comes from data."""

import os
import re
import shlex
import sys
from pathlib import Path

# control characters, lone surrogates, line separators, and marks that change the direction of writing
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def counted(n: int, one: str, many: str = "") -> str:
    """Return a count with its noun: 1 sample, 1,024 samples. `many` is the plural if it is not `one` with an s."""
    return f"{n:,} {one if n == 1 else many or f'{one}s'}"


def printable(text: str, keep: str = "") -> str:
    """Return `text` with control characters as Python escapes; the characters in `keep` stay."""
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


def warn(text: str) -> None:
    """Print one line on standard error, in the main process only."""
    if os.environ.get("RANK", "0") == "0":
        print(f"mvssl: {printable(text)}", file=sys.stderr)


def split_names(listed: str) -> list[str]:
    """Return the names in a list such as `left, right`: the views of an encoder group."""
    return [name.strip() for name in listed.split(",")]


def shell_word(path: Path | str) -> str:
    """Return a path as one word of the shell; ./ is added to a name that begins with - or ~."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith(("-", "~")) else text)
