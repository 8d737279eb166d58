"""From the patterns of a recipe to the shards on the disk.

in   paths, folders, globs and {000..012} braces, relative to a root
out  paths of shards that are there; or an error that says what was looked for, where, and what is there instead
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
_LONGEST, _DEEPEST = 4096, 50  # letters of a pattern, braces in braces
_NUMBERS = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.-?(\d{1,18}))?", re.ASCII)


def pattern_list(patterns: str | list[str]) -> list[str]:
    """One pattern as a list of one."""
    return [patterns] if isinstance(patterns, str) else list(patterns)


def find_shards(patterns: str | list[str], root: Path) -> list[Path]:
    """The shards that `patterns` name: paths, folders, globs and {000..012} braces, relative to `root`.

    Sorted within a pattern. `root` is taken as it is written, and so is the part of a pattern that exists under that
    very name, such as a folder d[2024]. Raises `DataError` where a pattern finds nothing or a shard is named twice, and
    `RecipeError` where a pattern is a URL or a command, or its braces name more than a million shards.
    """
    wanted = pattern_list(patterns)
    if not wanted:
        raise RecipeError(
            "no shards are named: give data.train (or data.val) paths or patterns such as set/train/*.tar"
        )
    shards = [shard for pattern in wanted for shard in _expand_one(pattern, home_path(root))]
    twice = [shard for shard, n in Counter(shard.resolve() for shard in shards).items() if n > 1]
    if twice:
        raise DataError(f"shard {min(twice)} is named twice by {', '.join(wanted)}; its samples would count double")
    return shards


def _expand_one(pattern: str, root: Path) -> list[Path]:
    _refuse_urls(pattern)
    if len(pattern) > _LONGEST or "\0" in pattern:
        raise RecipeError(f"shards {pattern[:80]!r}...: {len(pattern):,} letters; a path has at most {_LONGEST:,}")
    base, rest = _as_written(root, str(home_path(pattern)))
    shards, absent = [], []
    for name in _braces(rest, pattern):
        found = sorted(_match(base, name))
        shards += found
        if not found:
            absent.append(str((base / name).relative_to(root) if base.is_relative_to(root) else base / name))
        if len(absent) > 3:  # more are not told
            break
    if absent:
        raise DataError(_nothing(pattern, absent, root))
    return shards


def _as_written(base: Path, pattern: str) -> tuple[Path, str]:
    """The longest beginning of `pattern` that exists under that very name, and the rest, which is to be expanded."""
    parts = list(Path(pattern).parts)
    while parts and os.path.lexists(base / parts[0]):
        base /= parts.pop(0)
    return base, "/".join(parts)


def _braces(pattern: str, whole: str) -> Iterator[str]:
    """The names that the braces of a pattern stand for, counted before any is made."""
    try:
        count = _count(pattern)
    except ValueError:
        raise RecipeError(f"shards {whole!r}: a brace is not closed; write {{000..012}} or {{a,b}}") from None
    except RecursionError:
        raise RecipeError(f"shards {whole!r}: more than {_DEEPEST} braces in each other") from None
    if count > _MOST:
        number = f"{count:,}" if count < 10**15 else "more than 10^15"
        raise RecipeError(f"shards {whole!r}: its braces name {number} shards; at most {_MOST:,} can be read")
    return iter(braceexpand(pattern)) if count > 1 or "\\" in pattern else iter([pattern])


def _count(pattern: str, depth: int = 0) -> int:
    """How many names braceexpand makes of a pattern. Raises `ValueError` where a brace is not closed."""
    if depth > _DEEPEST:
        raise RecursionError
    count = 1
    for inner in _inside_braces(pattern):
        numbers, letters = _NUMBERS.fullmatch(inner), re.fullmatch(r"[A-Za-z]\.\.[A-Za-z](\.\.-?\d+)?", inner)
        parts = _between_commas(inner)
        if numbers:
            first, last, step = int(numbers[1]), int(numbers[2]), int(numbers[3] or 1) or 1
            count *= abs(last - first) // step + 1
        elif re.fullmatch(r"-?\d+\.\.-?\d+(\.\.-?\d+)?", inner):  # of more digits
            count *= 10**18
        elif letters:
            count *= 52
        elif len(parts) > 1:
            count *= sum(_count(part, depth + 1) for part in parts)
        else:
            count *= _count(inner, depth + 1)
    return count


def _inside_braces(pattern: str) -> list[str]:
    """What stands between the outermost braces."""
    found, depth, start = [], 0, 0
    for place, letter in _unescaped(pattern):
        if letter == "{":
            depth += 1
            start = place + 1 if depth == 1 else start
        elif letter == "}":
            depth -= 1
            if depth == 0:
                found.append(pattern[start:place])
    if depth:
        raise ValueError
    return found


def _between_commas(inner: str) -> list[str]:
    parts, depth, start = [], 0, 0
    for place, letter in _unescaped(inner):
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            parts.append(inner[start:place])
            start = place + 1
    return [*parts, inner[start:]]


def _unescaped(pattern: str) -> Iterator[tuple[int, str]]:
    return ((match.start(), match[0]) for match in re.finditer(r"\\.|[{},]", pattern, re.DOTALL))


def _refuse_urls(pattern: str) -> None:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", pattern)
    if scheme and scheme[1].lower() == "pipe":
        raise RecipeError(f"shards {pattern!r}: pipe: runs a shell command, which mvssl never does; name files")
    if scheme:
        raise RecipeError(
            f"shards {pattern!r}: {scheme[1]}: addresses cannot be read yet (a later version will); "
            "copy the shards to a local folder and name their paths"
        )


def _match(base: Path, name: str) -> Iterator[Path]:
    base, rest = _as_written(base, name)
    if rest:
        found = (base / path for path in glob.glob(rest, root_dir=base, recursive=True))
    elif os.path.isdir(base):
        found = (base / path for path in glob.glob("*.tar", root_dir=base))
    else:
        found = iter([base])
    return (path for path in found if os.path.isfile(path))


def _nothing(pattern: str, absent: list[str], root: Path) -> str:
    """What was looked for, where, what is there instead, and what to do about it."""
    folder = root / absent[0]
    while not os.path.isdir(folder) and folder != folder.parent:
        folder = folder.parent
    missing = f" (missing: {', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''})" if absent != [pattern] else ""
    try:
        seen = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"no shards match {pattern!r}{missing}: {folder.absolute()}: {error.strerror}") from None
    there = sorted(printable(entry.name) + "/" * os.path.isdir(entry) for entry in seen)
    holds = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "") if there else "nothing"
    inside = [entry for entry in there if glob.glob("*.tar", root_dir=folder / entry)]
    below = inside if folder == root / absent[0] else []
    named = ", ".join(str(Path(absent[0]) / entry) for entry in below)  # the folder was named, not those in it
    way_out = (
        f"Name {named}"
        if below
        else "Make shards with `mvssl pack SOURCE DEST`, or point elsewhere with data.root=FOLDER or MVSSL_DATA=FOLDER"
    )
    return f"no shards match {pattern!r}{missing} in {root.absolute()}; {folder.absolute()} holds {holds}. {way_out}"
