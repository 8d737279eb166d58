"""Sentences of the documents are short enough to be read once. Tables and code are not counted."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LONGEST = 25  # words
PAGES = sorted(
    [
        *(page for page in (ROOT / "docs").rglob("*.md") if "generated" not in page.parts),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    ]
)


def sentences(text: str) -> list[str]:
    """Return the sentences of a Markdown text; a code span and a link count as one word."""
    text = re.sub(r"(?ms)^\s*(```+).*?^\s*\1\s*$", "", text)
    text = re.sub(r"`[^`\n]*`", "CODE", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    blocks: list[str] = []
    for line in text.splitlines():
        start = re.match(r"\s*([-*]|\d+\.|#+|>)\s+", line)
        if not line.strip() or line.lstrip().startswith("|") or start:
            blocks.append("")
        if line.strip() and not line.lstrip().startswith("|"):
            blocks[-1:] = [f"{blocks[-1] if blocks else ''} {line[start.end() :] if start else line.strip()}"]
    end = r"(?<=[.!?])[*)\"']*\s+(?=[^a-z]|mvssl)"
    return [part for block in blocks for part in re.split(end, block.strip()) if part]


def words(sentence: str) -> int:
    """Return how many words a sentence has; numbers and signs alone do not count."""
    return len([word for word in sentence.split() if re.search(r"[^\W\d_]", word)])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_sentence_is_long(page: Path):
    long = {part: words(part) for part in sentences(page.read_text()) if words(part) > LONGEST}
    assert not long


def test_sentences_are_counted_without_code_and_tables():
    text = "# Title\n\nOne two `three four`. Five [six seven](x.md)!\n\n| a b |\n\n```\ncode. X\n```\n- eight\n  nine"
    assert [words(part) for part in sentences(text)] == [1, 3, 3, 2]
