"""How counts and warnings are said to people."""

import os
import sys


def counted(n: int, one: str, many: str = "") -> str:
    """1 sample, 1,024 samples; `many` where it is not `one` and an s."""
    return f"{n:,} {one if n == 1 else many or f'{one}s'}"


def warn(text: str) -> None:
    """One line on standard error, from the main process of a run."""
    if os.environ.get("RANK", "0") == "0":
        print(f"mvssl: {text}", file=sys.stderr)
