"""Write a report on a run and read it; change the files of a run."""

import json
from pathlib import Path

from html_page import Page

from mvssl.reporting import report


def read(run: Path, **options) -> Page:
    return Page(report(run, **options).file.read_text())


def append(run: Path, *lines: object) -> None:
    with open(run / "metrics.jsonl", "a") as file:
        file.writelines(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)


def find_reason(run: Path, title: str) -> str:
    return next(absent.why for absent in report(run, samples=0).absent if absent.title == title)
