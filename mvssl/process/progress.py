"""A progress bar on standard error. It appears on a terminal only, and only if the work takes more than a second."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")


def progress_bar(items: Iterable[Item], label: str, total: int, shown: bool = True) -> Iterator[Item]:
    """Yield `items` and show a progress bar with `label` that counts to `total`."""
    if not (shown and sys.stderr.isatty()):
        yield from items
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task, begin = bar.add_task(label, total=total), time.monotonic()
    try:
        for item in items:
            if not bar.live.is_started and time.monotonic() - begin > 1:
                bar.start()
            yield item
            bar.advance(task)
    finally:
        bar.stop()
