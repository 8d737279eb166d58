"""What a run writes about samples whose views do not seem to show one thing.

RUN/mispaired.jsonl   a line each, the most suspicious first: shard, key, views, score, threshold, visits, step
    mispaired.png     the first of them, a row each, all their columns side by side
"""

import json
from pathlib import Path

from mvssl.data import Source
from mvssl.errors import OutputError, StorageError
from mvssl.files import write_file, write_picture
from mvssl.monitoring.matching import Matching
from mvssl.monitoring.outliers import Suspects, suspects
from mvssl.views import ViewSet

DRAWN = 12


def find(matching: Matching) -> Suspects:
    """The suspects of a run so far."""
    return suspects(matching.means(), matching.chance.cpu(), matching.visits.cpu(), matching.pairs)


def in_words(found: Suspects) -> str:
    """One line for the terminal."""
    if found.why:
        return f"mispaired samples: none told, {found.why}"
    few = "" if found.listed else "; no sample stands out"
    return f"mispaired samples: {len(found.listed)} of {found.samples:,} listed in mispaired.jsonl{few}"


def write(folder: Path, found: Suspects, source: Source, step: int) -> None:
    """Write mispaired.jsonl, empty where nobody stands out."""
    lines = [
        {
            "shard": source.shard(s.index), "key": source.key(s.index), "views": s.views, "score": round(s.score, 4),
            "threshold": found.threshold, "visits": s.visits, "step": step,
        }
        for s in found.listed
    ]  # fmt: skip
    write_file(folder / "mispaired.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def draw(folder: Path, found: Suspects, source: Source, views: ViewSet) -> None:
    """Draw the first suspects to mispaired.png; samples that can no longer be read are left out."""
    from mvssl.figures.contact_sheet import draw_column_sheet  # loads matplotlib

    batch = source.read_batch(suspect.index for suspect in found.listed[:DRAWN])
    readable = set(batch.index.tolist())
    shown = [suspect for suspect in found.listed[:DRAWN] if suspect.index in readable]
    if not shown:
        return
    notes = [f"{source.key(s.index)}\n{s.views}\n{s.score:.0%} ahead" for s in shown]
    rates = {name: column.rate for name, column in source.columns.items()}
    try:
        write_picture(draw_column_sheet(views, batch, notes, rates=rates), folder / "mispaired.png")
    except OutputError as error:
        raise StorageError(str(error)) from None
