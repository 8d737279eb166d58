"""Mispaired samples: those whose views do not seem to show the same thing, as a list and as pictures."""

from collections.abc import Iterator
from typing import Any

from mvssl.data import ShardSource
from mvssl.errors import DataError
from mvssl.reporting.content import Block, Cell, Folded, Galleries, Gallery, Grid, Paragraph, TextTable, describe_value
from mvssl.reporting.inputs import Inputs
from mvssl.reporting.pictures import encode_pixels, view_pixels
from mvssl.reporting.run_files import short_path
from mvssl.text import counted
from mvssl.views import ViewSet

MAX_LISTED, MAX_DRAWN = 40, 12
Place = tuple[str, str]  # shard and key
COLUMNS = ["shard", "key", "views", "score"]
NO_FILE = "checks list such samples in mispaired.jsonl if the views of a run come from several columns"
NO_SAMPLE = "mispaired.jsonl is empty: no sample stands out"
TOO_EARLY = "the checks cannot tell yet: samples were used too few times, or most positives are not found yet"


def show_mispaired(inputs: Inputs) -> list[Block]:
    """Return the lines of mispaired.jsonl, the first as pictures if the shards that are open hold the sample."""
    facts, encoded, training = inputs.facts, inputs.encoded.value, inputs.training.value
    rows = facts.mispaired
    if not rows:
        checked, scored = (facts.folder / "mispaired.jsonl").exists(), "mispaired" in facts.metrics
        raise DataError((NO_SAMPLE if scored else TOO_EARLY) if checked else NO_FILE)
    note = (
        f"{counted(len(rows), 'sample')} whose views do not seem to show the same thing, the most suspicious first. "
        "The score is the share of negatives that fit better than the sample's own positive; a half is chance."
    )
    figures = []
    if encoded:
        sources = [encoded.source, training] if training else [encoded.source]
        figures = list(_draw_samples(encoded.run.views, sources, rows[:MAX_DRAWN]))
    listed = rows[:MAX_LISTED]
    table = TextTable(COLUMNS, [[_read_place(row)[0], *(describe_value(row.get(name, "")) for name in COLUMNS[1:])]
                            for row in listed])  # fmt: skip
    folded = Folded(f"The first {len(listed)} as a list", [table], unfolded=not figures)
    return [Paragraph(note), *([Galleries(figures, narrow=True)] if figures else []), folded]


def _draw_samples(views: ViewSet, sources: list[ShardSource], rows: list[dict[str, Any]]) -> Iterator[Gallery]:
    """Yield the views of the samples that are in `sources` and can be decoded."""
    places = _find_samples(sources, set(map(_read_place, rows)))
    for row in rows:
        if (place := _read_place(row)) not in places:
            continue
        source, index = places[place]
        batch = source.read_batch([index])
        if not len(batch.index):
            continue
        clean, key, named = views.clean(batch, "cpu"), place[1], row.get("views")
        names = [name for name in views.bases if not isinstance(named, list) or name in named] or views.bases
        pixels = {name: view_pixels(views, name, clean[name], batch)[0] for name in names}
        cells = [Cell(encode_pixels(one, f"{name} of sample {key}"), name) for name, one in pixels.items()]
        yield Gallery(key, f"score {describe_value(row.get('score', ''))}", [Grid(cells, len(cells))])


def _find_samples(sources: list[ShardSource], wanted: set[Place]) -> dict[Place, tuple[ShardSource, int]]:
    """Return source and index of samples by shard and key; the first source that holds one counts."""
    places: dict[Place, tuple[ShardSource, int]] = {}
    for source in sources:
        for index in range(len(source)):
            place = short_path(source.shard(index)), source.key(index)
            if place in wanted:
                places.setdefault(place, (source, index))
            if len(places) == len(wanted):
                return places
    return places


def _read_place(row: dict[str, Any]) -> Place:
    return short_path(row.get("shard", "")), str(row.get("key"))
