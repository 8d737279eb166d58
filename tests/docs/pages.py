"""Code blocks of the documents, by page."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if "generated" not in page.parts)
PAGES += [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def name(page: Path) -> str:
    """Return the path of a page within the repository."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", page.read_text())


def commands(page: Path) -> list[str]:
    """Return the commands after `$ ` of the console blocks, with continued lines joined."""
    text = "\n".join(blocks(page, "console"))
    return re.findall(r"(?m)^\$ (.*)$", re.sub(r"\\\n\s*", " ", text))
