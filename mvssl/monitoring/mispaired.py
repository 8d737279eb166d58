"""Reports samples whose views do not seem to belong together.

RUN/mispaired.jsonl   a line each, the largest score first: shard, key, views, score, threshold, visits, step
    mispaired.png     the first of them, a row each, all their columns side by side
"""

import json
from collections.abc import Callable
from pathlib import Path

from mvssl.data import Source
from mvssl.errors import OutputError, StorageError
from mvssl.files import write_file, write_picture
from mvssl.monitoring.mispairing import MispairingTracker
from mvssl.monitoring.outliers import Outliers, find_outliers
from mvssl.text import warn
from mvssl.views import ViewSet

DRAWN = 12


def report_mispaired(
    tracker: MispairingTracker, folder: Path, source: Source, views: ViewSet, step: int, *, last: bool
) -> tuple[int | None, list[str]]:
    """Write the outliers so far; return how many there are, None where the test cannot run, and lines to print.

    The picture is drawn and a line is always printed at the `last` step. A full disk gives a warning.
    """
    found = find_outliers(tracker.means(), tracker.chance.cpu(), tracker.visits.cpu(), tracker.pairs)
    warn_if_full(lambda: write_lines(folder, found, source, step))
    if last:
        warn_if_full(lambda: draw(folder, found, source, views))
    lines = [describe(found)] if last or found.listed else []
    return None if found.why else len(found.listed), lines


def describe(found: Outliers) -> str:
    """Return one line for the terminal."""
    if found.why:
        return f"mispaired samples: not known, {found.why}"
    none = "" if found.listed else "; no sample stands out"
    return f"mispaired samples: {len(found.listed)} of {found.samples:,} listed in mispaired.jsonl{none}"


def write_lines(folder: Path, found: Outliers, source: Source, step: int) -> None:
    """Write mispaired.jsonl, empty where no sample stands out."""
    lines = [
        {
            "shard": source.shard(s.index), "key": source.key(s.index), "views": s.views, "score": round(s.score, 4),
            "threshold": found.threshold, "visits": s.visits, "step": step,
        }
        for s in found.listed
    ]  # fmt: skip
    write_file(folder / "mispaired.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def draw(folder: Path, found: Outliers, source: Source, views: ViewSet) -> None:
    """Draw the first outliers to mispaired.png; samples that can no longer be read are left out."""
    from mvssl.figures.contact_sheet import draw_column_sheet  # loads matplotlib

    batch = source.read_batch(outlier.index for outlier in found.listed[:DRAWN])
    readable = set(batch.index.tolist())
    shown = [outlier for outlier in found.listed[:DRAWN] if outlier.index in readable]
    if not shown:
        return
    notes = [f"{source.key(s.index)}\n{s.views}\n{s.score:.0%} ahead" for s in shown]
    rates = {name: column.rate for name, column in source.columns.items()}
    try:
        write_picture(draw_column_sheet(views, batch, notes, rates=rates), folder / "mispaired.png")
    except OutputError as error:
        raise StorageError(str(error)) from None


def warn_if_full(write: Callable[[], object]) -> None:
    """Write the result of a check; a full disk gives a warning, as training has more important things to save."""
    try:
        write()
    except (StorageError, OutputError) as error:
        warn(f"{error}; training goes on")
