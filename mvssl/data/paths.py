"""From the patterns of a recipe to the shards on the disk."""

import glob
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from braceexpand import braceexpand

from mvssl.errors import DataError, RecipeError

_MOST = 1_000_000  # shards that one pattern may name


def listed(patterns: str | list[str]) -> list[str]:
    """One pattern as a list of one."""
    return [patterns] if isinstance(patterns, str) else list(patterns)


def expand(patterns: str | list[str], root: Path) -> list[Path]:
    """The shards that `patterns` name: paths, folders, globs and {000..012} braces, relative to `root`.

    Sorted within a pattern. Raises `DataError` where a pattern finds nothing or a shard is named twice, and
    `RecipeError` where a pattern is a URL or a command.
    """
    wanted = listed(patterns)
    if not wanted:
        raise RecipeError(
            "no shards are named: give data.train (or data.val) paths or patterns such as set/train/*.tar"
        )
    shards = [shard for pattern in wanted for shard in _expand_one(pattern, root)]
    twice = {shard for shard, n in _counts(shards).items() if n > 1}
    if twice:
        raise DataError(f"shard {min(twice)} is named twice by {', '.join(wanted)}; its samples would count double")
    return shards


def _counts(shards: list[Path]) -> dict[Path, int]:
    counts: dict[Path, int] = {}
    for shard in shards:
        counts[shard.resolve()] = counts.get(shard.resolve(), 0) + 1
    return counts


def _expand_one(pattern: str, root: Path) -> list[Path]:
    _refuse_urls(pattern)
    try:
        plain = list(itertools.islice(braceexpand(pattern), _MOST))
    except ValueError:  # UnbalancedBracesError
        raise RecipeError(f"shards {pattern!r}: a brace is not closed; write {{000..012}} or {{a,b}}") from None
    found = [sorted(_match(root / name)) for name in plain]
    absent = [name for name, shards in zip(plain, found, strict=True) if not shards]
    if absent:
        raise DataError(_nothing(pattern, absent, root))
    return [shard for shards in found for shard in shards]


def _refuse_urls(pattern: str) -> None:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", pattern)
    if scheme and scheme[1].lower() == "pipe":
        raise RecipeError(f"shards {pattern!r}: pipe: runs a shell command, which mvssl never does; name files")
    if scheme:
        raise RecipeError(
            f"shards {pattern!r}: {scheme[1]}: addresses cannot be read yet (a later version will); "
            "copy the shards to a local folder and name their paths"
        )


def _match(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        yield from (inside for inside in path.glob("*.tar") if inside.is_file())
    else:
        yield from (Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())


def _nothing(pattern: str, absent: list[str], root: Path) -> str:
    """What was looked for, where, what is there instead, and what to do about it."""
    folder = root / absent[0]
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    missing = f" (missing: {', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''})" if len(absent) > 1 else ""
    there = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir() if not entry.name.startswith("."))
    holds = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "") if there else "nothing"
    below = [entry for entry in there if any((folder / entry).glob("*.tar"))] if folder == root / absent[0] else []
    named = ", ".join(str(Path(absent[0]) / entry) for entry in below)  # the folder was named, not those in it
    way_out = (
        f"Name {named}"
        if below
        else "Make shards with `mvssl pack SOURCE DEST`, or point elsewhere with data.root=FOLDER or MVSSL_DATA=FOLDER"
    )
    return f"no shards match {pattern!r}{missing} in {root.absolute()}; {folder.absolute()} holds {holds}. {way_out}"
