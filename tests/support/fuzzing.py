"""Documents gone wrong, the same ones in every run of the tests: damaged bytes, and whole ones with wrong values.

The generator's seed is a constant, so that how many inputs a test tries can be quoted.
"""

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

SEED = 0
ODD = [
    None, True, False, -1, 0, 3, 2**63, 10**400, 1.5, -0.0, 1e308, float("nan"), float("inf"), "", "x", "1", "x" * 5000,
    "\x1b[31m\u202e\x00", "\ud800", "../..", "~", [], [[]], [None], [1, "a"], {}, {"": {}}, {"a": [{"b": None}]},
]  # fmt: skip
DEEP = 40  # lists inside each other, of a value
TOO_DEEP = 100_000  # of a text, beyond what Python parses


def documents(valid: Any, count: int) -> Iterator[str]:
    """`count` JSON texts: `valid` with one to three values or keys made wrong, then damaged bytes, by turns."""
    numbers = random.Random(SEED)
    for turn in range(count):
        document = copy.deepcopy(valid)
        for _ in range(numbers.randint(1, 3)):
            document = _wrong(document, numbers)
        text = json.dumps(document)
        yield damaged(text.encode(), numbers).decode(errors="replace") if turn % 2 else text


def _wrong(document: Any, numbers: random.Random) -> Any:
    """The document with something odd at a random place."""
    here, path = document, []
    while isinstance(here, dict | list) and here and (not path or numbers.random() < 0.7):
        key = numbers.choice(list(here)) if isinstance(here, dict) else numbers.randrange(len(here))
        path.append((here, key))
        here = here[key]
    value = copy.deepcopy(numbers.choice(ODD))
    if numbers.random() < 0.05:
        for _ in range(DEEP):
            value = [value]
    if not path or numbers.random() < 0.02:
        return value
    holder, key = path[-1]
    if isinstance(holder, dict) and numbers.random() < 0.2:
        del holder[key]
        holder[str(numbers.choice(ODD))] = here
    elif numbers.random() < 0.1:
        del holder[key]
    else:
        holder[key] = value
    return document


def damaged(content: bytes, numbers: random.Random) -> bytes:
    """The bytes cut short, with one changed, or with some inserted or taken out."""
    place = numbers.randrange(max(len(content), 1))
    kind = numbers.randrange(5)
    if kind == 0:
        return content[:place]
    if kind == 1:
        return content[:place] + bytes([numbers.randrange(256)]) + content[place + 1 :]
    if kind == 2:
        return content[:place] + numbers.randbytes(numbers.randint(1, 8)) + content[place:]
    if kind == 3:
        return content[:place] + content[place + numbers.randint(1, 40) :]
    return (
        content[:place]
        + numbers.choice([b"\0", b"\xff\xfe", b"[" * 200, b"9" * 5000, b"{", b"\n", b'"'])
        + content[place:]
    )
