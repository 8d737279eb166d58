"""Mispaired samples: those whose views do not seem to show the same thing, as a list and as pictures."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from mvssl.data import ShardSource
from mvssl.reporting.content import Absent, Picture, Section, Table, describe_value
from mvssl.reporting.facts import Facts, short_path
from mvssl.reporting.pictures import encode_pixels, view_pixels
from mvssl.runs.load import LoadedRun
from mvssl.text import counted

MAX_LISTED, MAX_DRAWN = 40, 12
Place = tuple[str, str]  # shard and key
COLUMNS = ("shard", "key", "views", "score")
NO_FILE = "checks list such samples in mispaired.jsonl if the views of a run come from several columns"
TOO_EARLY = "the checks cannot tell yet: samples were used too few times, or most positives are not found yet"


class DrawnSample(NamedTuple):
    key: str
    score: str
    views: list[tuple[str, Picture]]


@dataclass(frozen=True)
class Mispaired(Section):
    name, title = "mispaired", "Mispaired samples"
    note: str
    samples: list[DrawnSample]
    table: Table


def show_mispaired(facts: Facts, run: LoadedRun | None, sources: list[ShardSource]) -> Mispaired | Absent:
    """Return the lines of mispaired.jsonl, the first as pictures if one of `sources` holds the sample."""
    rows = facts.mispaired
    if not rows:
        checked, scored = (facts.folder / "mispaired.jsonl").exists(), "mispaired" in facts.metrics
        empty = "mispaired.jsonl is empty: no sample stands out" if scored else TOO_EARLY
        return Absent(Mispaired.title, empty if checked else NO_FILE)
    note = (
        f"{counted(len(rows), 'sample')} whose views do not seem to show the same thing, the most suspicious first. "
        "The score is the share of negatives that fit better than the sample's own positive; a half is chance."
    )
    table = Table(list(COLUMNS), [[_read_cell(row, name) for name in COLUMNS] for row in rows[:MAX_LISTED]])
    return Mispaired(note, _draw_samples(run, sources, rows[:MAX_DRAWN]) if run else [], table)


def _draw_samples(run: LoadedRun, sources: list[ShardSource], rows: list[dict[str, Any]]) -> list[DrawnSample]:
    """Return the samples that are found in `sources` and can be decoded."""
    places = _find_samples(sources, set(map(_shard_and_key, rows)))
    drawn = [_draw_sample(run, *places[at], row) for row in rows if (at := _shard_and_key(row)) in places]
    return [sample for sample in drawn if sample]


def _draw_sample(run: LoadedRun, source: ShardSource, index: int, row: dict[str, Any]) -> DrawnSample | None:
    batch, views = source.read_batch([index]), run.views
    if not len(batch.index):
        return None
    clean, key, named = views.clean(batch, "cpu"), str(row.get("key")), row.get("views")
    names = [name for name in views.bases if not isinstance(named, list) or name in named] or views.bases
    pixels = {name: view_pixels(views, name, clean[name], batch)[0] for name in names}
    pictures = [(name, encode_pixels(one, f"{name} of sample {key}")) for name, one in pixels.items()]
    return DrawnSample(key, describe_value(row.get("score", "")), pictures)


def _find_samples(
    sources: list[ShardSource], wanted: set[tuple[str, str]]
) -> dict[tuple[str, str], tuple[ShardSource, int]]:
    """Return source and index of samples by shard and key; the first source that holds one counts."""
    places: dict[Place, tuple[ShardSource, int]] = {}
    for source in sources:
        for index in range(len(source)):
            at = short_path(source.shard(index)), source.key(index)
            if at in wanted:
                places.setdefault(at, (source, index))
            if len(places) == len(wanted):
                return places
    return places


def _shard_and_key(row: dict[str, Any]) -> Place:
    return short_path(row.get("shard", "")), str(row.get("key"))


def _read_cell(row: dict[str, Any], name: str) -> str:
    return _shard_and_key(row)[0] if name == "shard" else describe_value(row.get(name, ""))
