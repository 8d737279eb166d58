"""From the patterns of a recipe to the shards on the disk.

in   paths, folders, globs and {000..012} braces, relative to a root
out  paths of shards that exist; or an error that says what was looked for, where, and what is there instead
"""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from braceexpand import braceexpand

from mvssl.errors import DataError, RecipeError
from mvssl.files import home_path
from mvssl.text import printable

_MOST = 1_000_000  # shards that one pattern may name
_LONGEST, _DEEPEST = 4096, 50  # characters of a pattern, braces inside braces
_NUMBERS = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.-?(\d{1,18}))?", re.ASCII)
_LONG_NUMBERS = re.compile(r"-?\d+\.\.-?\d+(\.\.-?\d+)?")
_LETTERS = re.compile(r"[A-Za-z]\.\.[A-Za-z](\.\.-?\d+)?")


def pattern_list(patterns: str | list[str]) -> list[str]:
    """Return the patterns as a list; a single one is a list of one."""
    return [patterns] if isinstance(patterns, str) else list(patterns)


def find_shards(patterns: str | list[str], root: Path) -> list[Path]:
    """Return the shards that `patterns` name: paths, folders, globs and {000..012} braces, relative to `root`.

    They are sorted within a pattern. `root`, and the part of a pattern that exists under exactly that name, such as a
    folder d[2024], are taken literally. Raise `DataError` if a pattern finds nothing or a shard is named twice.
    Raise `RecipeError` if a pattern is a URL or a command, or its braces name more than a million shards.
    """
    wanted = pattern_list(patterns)
    if not wanted:
        raise RecipeError(
            "no shards are named: give data.train (or data.val) paths or patterns such as set/train/*.tar"
        )
    shards = [shard for pattern in wanted for shard in _find(pattern, home_path(root))]
    twice = [shard for shard, n in Counter(shard.resolve() for shard in shards).items() if n > 1]
    if twice:
        raise DataError(f"shard {min(twice)} is named twice by {', '.join(wanted)}; its samples would count double")
    return shards


def _find(pattern: str, root: Path) -> list[Path]:
    _refuse_urls(pattern)
    if len(pattern) > _LONGEST or "\0" in pattern:
        raise RecipeError(f"shards {pattern[:80]!r}...: {len(pattern):,} letters; a path has at most {_LONGEST:,}")
    base, rest = _split_literal(root, str(home_path(pattern)))
    shards, absent = [], []
    for name in _expand_braces(rest, pattern):
        found = sorted(_glob(base, name))
        shards += found
        if not found:
            absent.append(str((base / name).relative_to(root) if base.is_relative_to(root) else base / name))
        if len(absent) > 3:  # the message names no more
            break
    if absent:
        raise DataError(_not_found(pattern, absent, root))
    return shards


def _split_literal(base: Path, pattern: str) -> tuple[Path, str]:
    """Return the longest beginning of `pattern` that exists under exactly that name, and the rest to expand."""
    parts = list(Path(pattern).parts)
    while parts and os.path.lexists(base / parts[0]):
        base /= parts.pop(0)
    return base, "/".join(parts)


def _expand_braces(pattern: str, full: str) -> Iterator[str]:
    """Return the names that the braces of a pattern stand for. They are counted before any is made."""
    count = count_brace_names(pattern, full)
    if count > _MOST:
        number = f"{count:,}" if count < 10**15 else "more than 10^15"
        raise RecipeError(f"shards {full!r}: its braces name {number} shards; at most {_MOST:,} can be read")
    return iter(braceexpand(pattern)) if count > 1 or "\\" in pattern else iter([pattern])


def count_brace_names(pattern: str, full: str) -> int:
    """Return how many names braceexpand makes of a pattern, or a few more. Raise `RecipeError` that quotes `full`."""
    unbalanced = RecipeError(f"shards {full!r}: a brace is not closed; write {{000..012}} or {{a,b}}")
    starts: list[int] = []  # of the open braces
    counts: list[list[int]] = [[1]]  # of the names of each alternative, in the pattern and in each open brace
    for match in re.finditer(r"\\.|[{},]", pattern, re.DOTALL):
        if match[0] == "{":
            if len(starts) == _DEEPEST:
                raise RecipeError(f"shards {full!r}: more than {_DEEPEST} braces in each other")
            starts.append(match.end())
            counts.append([1])
        elif match[0] == "," and starts:
            counts[-1].append(1)
        elif match[0] == "}":
            if not starts:
                raise unbalanced
            inner, alternatives = pattern[starts.pop() : match.start()], counts.pop()
            counts[-1][-1] *= _count_inside(inner, sum(alternatives))
    if starts:
        raise unbalanced
    return counts[0][0]


def _count_inside(inner: str, alternatives: int) -> int:
    """Return the number of names of one pair of braces, from its text and the names of its alternatives."""
    if numbers := _NUMBERS.fullmatch(inner):
        first, last, step = int(numbers[1]), int(numbers[2]), int(numbers[3] or 1) or 1
        return abs(last - first) // step + 1
    if _LONG_NUMBERS.fullmatch(inner):
        return 10**18
    return 52 if _LETTERS.fullmatch(inner) else alternatives


def _refuse_urls(pattern: str) -> None:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", pattern)
    if scheme and scheme[1].lower() == "pipe":
        raise RecipeError(f"shards {pattern!r}: pipe: runs a shell command, which mvssl never does; name files")
    if scheme:
        raise RecipeError(
            f"shards {pattern!r}: {scheme[1]}: addresses cannot be read yet (a later version will); "
            "copy the shards to a local folder and name their paths"
        )


def _glob(base: Path, name: str) -> Iterator[Path]:
    base, rest = _split_literal(base, name)
    if rest:
        found = (base / path for path in glob.glob(rest, root_dir=base, recursive=True))
    elif os.path.isdir(base):
        found = (base / path for path in glob.glob("*.tar", root_dir=base))
    else:
        found = iter([base])
    return (path for path in found if os.path.isfile(path))


def _not_found(pattern: str, absent: list[str], root: Path) -> str:
    """Return a message: what was looked for, where, what is there instead, and what to do."""
    folder = root / absent[0]
    while not os.path.isdir(folder) and folder != folder.parent:
        folder = folder.parent
    missing = f" (missing: {', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''})" if absent != [pattern] else ""
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"no shards match {pattern!r}{missing}: {folder.absolute()}: {error.strerror}") from None
    names = sorted(printable(entry.name) + "/" * os.path.isdir(entry) for entry in entries)
    holds = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "nothing"
    inside = [name for name in names if glob.glob("*.tar", root_dir=folder / name)]
    below = inside if folder == root / absent[0] else []  # the folder was named, not those in it
    advice = (
        f"Name {', '.join(str(Path(absent[0]) / name) for name in below)}"
        if below
        else "Make shards with `mvssl pack SOURCE DEST`, or point elsewhere with data.root=FOLDER or MVSSL_DATA=FOLDER"
    )
    return f"no shards match {pattern!r}{missing} in {root.absolute()}; {folder.absolute()} holds {holds}. {advice}"
