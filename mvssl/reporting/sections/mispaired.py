"""Mispaired samples: those whose views do not seem to show one thing, listed and, where they are found, drawn."""

from typing import Any

from mvssl.data import ShardSource
from mvssl.reporting import picture
from mvssl.reporting.gather import Facts, short_path
from mvssl.reporting.html import Html, el
from mvssl.reporting.samples import take
from mvssl.reporting.sections import Absent, Section
from mvssl.reporting.sections.verdict import as_text
from mvssl.runs.load import LoadedRun
from mvssl.text import counted

LISTED, DRAWN = 40, 12
KEYS = ("shard", "key", "views", "score")
NONE = "checks list such samples in mispaired.jsonl where the views of a run come from several columns"
EARLY = "no check could tell yet who is: samples were met too few times, or partners are not found yet"


def mispaired(facts: Facts, run: LoadedRun | None, sources: list[ShardSource]) -> Section | Absent:
    """The lines of mispaired.jsonl; the first of them as pictures where one of `sources` holds the samples."""
    rows = facts.mispaired
    if not rows:
        looked, told = (facts.folder / "mispaired.jsonl").exists(), "mispaired" in facts.metrics
        why = "mispaired.jsonl is empty: no sample stands out" if told else EARLY
        return Absent("Mispaired samples", why if looked else NONE)
    note = (
        f"{counted(len(rows), 'sample')} whose views do not seem to show one thing, the most suspicious first. The "
        "score is the share of strangers that fit better than the sample's own partner; a half is chance."
    )
    text = el("p", note, class_="note")
    drawn = _pictures(run, sources, rows[:DRAWN]) if run else None
    cells = [[el("td", _shown(row, name), data_label=name) for name in KEYS] for row in rows[:LISTED]]
    head = el("thead", el("tr", [el("th", name) for name in KEYS]))
    table = el("table", head, el("tbody", [el("tr", line) for line in cells]), class_="stack")
    listed = el("details", el("summary", f"The first {min(len(rows), LISTED)} as a list"), table, open=drawn is None)
    return Section("mispaired", "Mispaired samples", el("div", text, drawn, listed))


def _pictures(run: LoadedRun, sources: list[ShardSource], rows: list[dict[str, Any]]) -> Html | None:
    """The views of each sample side by side, under its key."""
    found = _places(sources, set(map(_name, rows)))
    figures = [_figure(run, *found[name], row) for row in rows if (name := _name(row)) in found]
    return el("div", figures, class_="charts pairs") if figures else None


def _name(row: dict[str, Any]) -> tuple[str, str]:
    return short_path(row.get("shard", "")), str(row.get("key"))


def _shown(row: dict[str, Any], name: str) -> str:
    return _name(row)[0] if name == "shard" else as_text(row.get(name, ""))


def _places(sources: list[ShardSource], wanted: set[tuple[str, str]]) -> dict[tuple[str, str], tuple[ShardSource, int]]:
    """Where the samples of these shards and keys are: source and index, the first that has them."""
    found: dict[tuple[str, str], tuple[ShardSource, int]] = {}
    for source in sources:
        for i in range(len(source)):
            name = short_path(source.shard(i)), source.key(i)
            if name in wanted:
                found.setdefault(name, (source, i))
            if len(found) == len(wanted):
                return found
    return found


def _figure(run: LoadedRun, source: ShardSource, index: int, row: dict[str, Any]) -> Html | None:
    batch, views = take(source, [index]), run.views
    if not len(batch.index):
        return None
    clean, named = views.clean(batch, "cpu"), row.get("views")
    shown = [name for name in views.bases if not isinstance(named, list) or name in named] or views.bases
    cells = []
    for name in shown:
        drawn = picture.look(views, name, clean[name], batch.columns[views.source_of(name)])[0]
        cells.append(el("span", picture.cell(drawn, f"{name} of sample {row.get('key')}"), el("small", name)))
    caption = el("figcaption", el("b", str(row.get("key"))), f" score {as_text(row.get('score', ''))}")
    return el("figure", caption, el("div", cells, class_="near", style=f"--columns: {len(cells)}"))
