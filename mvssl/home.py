"""Paths that begin with ~, wherever a path is given: in a recipe and on the command line.

in   a path, a pattern, or a source such as classes:~/images
out  the same with ~ or ~USER as that user's home folder; a folder that is really named ~ is ./~

Variables such as $HOME are the shell's affair and stay as they are.
"""

import os
import re
from pathlib import Path

from mvssl.errors import RecipeError


def at_home(path: str) -> str:
    """The path with ~ or ~USER written out. Raises `ValueError` where there is no such user or no home is known."""
    kind, rest = re.fullmatch(r"((?:[a-z]+:)?)(.*)", path, re.DOTALL).groups()  # pyright: ignore[reportOptionalMemberAccess]
    if not rest.startswith("~"):
        return path
    whole = os.path.expanduser(rest)
    if whole.startswith("~"):
        user = rest.partition("/")[0]
        why = "no home folder is known; set HOME" if user == "~" else f"there is no user {user[1:]!r}"
        raise ValueError(f"{path}: {why}; write {kind}./{rest} for what is really named so")
    return kind + whole


def known_home(path: str) -> str:
    """The path as it is written. Raises `ValueError` where `at_home` would."""
    at_home(path)
    return path


def home_path(path: str | Path) -> Path:
    """The path with ~ or ~USER written out. Raises `RecipeError`."""
    try:
        return Path(at_home(str(path)))
    except ValueError as error:
        raise RecipeError(str(error)) from None
