"""Turn docstrings as mvssl writes them into reStructuredText that docutils reads without warnings.

in   lines of a docstring: paragraphs, lists, names in single backticks, indented blocks, `in` and `out` lines
out  the lines that autodoc parses
"""

import re


def convert(lines: list[str]) -> list[str]:
    """Return the lines with code spans as literals, signs escaped, and indented blocks as literal blocks."""
    converted: list[str] = []
    block = item = False
    for line in _escaped("\n".join(lines)).splitlines():
        parameter = re.match(r"(in|out) {2,}(.*)", line)
        indented = line.startswith(" ") and bool(line.strip())
        if parameter:
            converted += ["", f"**{parameter[1]}**: {parameter[2]}"]
            item = True
        elif indented and item:
            converted.append(f"  {line.strip()}" if converted[-1].startswith(("- ", "  ")) else line.strip())
        elif indented:
            converted += [] if block else ["", "::", ""]
            converted.append(f"    {_unescaped(line)}")
        elif not line.strip():
            converted.append("")
        else:
            item = line.startswith("- ")
            converted += [""] if block or (item and converted and not converted[-1].startswith(("- ", "  "))) else []
            converted.append(line)
        block = (indented and not item) or (block and not line.strip())
        item = item and bool(line.strip())
    return [*converted, ""]


def _escaped(text: str) -> str:
    parts = re.split(r"(`[^`]+`)", text)
    for number, part in enumerate(parts):
        if number % 2:
            after = parts[number + 1][:1]
            parts[number] = f"`{' '.join(part.split())}`" + ("\\ " if after.isalnum() else "")
        else:
            parts[number] = re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", part)
    return "".join(parts)


def _unescaped(line: str) -> str:
    return re.sub(r"\\([*|\\_ ])", r"\1", line.replace("``", "`"))
