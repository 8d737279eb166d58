"""From a run folder to a page: read its files, encode some samples, write one HTML file.

in   a run folder, finished or still in training
out  RUN/report.html, and a list of the sections whose data are absent
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined

from mvssl import __version__
from mvssl.data import ShardSource, open_shards
from mvssl.distributed.devices import enough_memory
from mvssl.errors import MvsslError, OutputError
from mvssl.files import PAGE, check_output, write_file
from mvssl.reporting.content import Absent, Section
from mvssl.reporting.facts import Facts, read_facts
from mvssl.reporting.samples import EncodedSamples, encode_samples
from mvssl.reporting.sections.diagnosis import show_diagnosis
from mvssl.reporting.sections.embedding import Embedding, show_embedding
from mvssl.reporting.sections.maps import Maps, show_maps
from mvssl.reporting.sections.mispaired import show_mispaired
from mvssl.reporting.sections.neighbours import Neighbours, show_neighbours
from mvssl.reporting.sections.origin import show_origin
from mvssl.reporting.sections.probes import show_probes
from mvssl.reporting.sections.run_charts import show_bounds, show_curves, show_pace, show_plane
from mvssl.reporting.sections.sheet import Views, show_views
from mvssl.reporting.sections.summary import describe_state, show_summary
from mvssl.runs.load import LoadedRun, packages, refuse_untrusted
from mvssl.text import counted

SAMPLES = 1000  # encoded by default: some seconds on two CPU cores for the recipes that come with mvssl
T = TypeVar("T")


class WrittenReport(NamedTuple):
    """The page, its absent sections, and the parts of the run's files that could not be read."""

    file: Path
    absent: list[Absent]
    left_out: list[str]


@enough_memory("take fewer samples: --samples N, or --samples 0 for a page without them")
def report(
    run: str | Path | LoadedRun,
    out: str | Path | None = None,
    *,
    samples: int = SAMPLES,
    checkpoint: str | int = "last",
    trust: Iterable[str] = (),
) -> WrittenReport:
    """Write the report on a run, by default to RUN/report.html; `samples` 0 leaves out what needs model and data.

    The features of the samples are those of `checkpoint`: last, best, or a step, see `load_run`. A recipe may name
    classes outside mvssl only from packages listed in `trust`. A `LoadedRun` gives checkpoint and trust itself.
    Raises `DataError` if the folder is no run or has no such checkpoint, `RecipeError` if its recipe cannot be used,
    and `OutputError` if the page cannot be written.
    """
    if isinstance(run, LoadedRun):
        run, checkpoint, trust = run.folder, run.which, packages(run.recipe)
    facts = read_facts(Path(run))
    refuse_untrusted(facts.recipe, trust)
    file = Path(out) if out else facts.folder / "report.html"
    check_output(file, PAGE)
    built = list(_build_sections(facts, samples, str(checkpoint), list(trust)))
    sections, absent = [s for s in built if isinstance(s, Section)], [s for s in built if isinstance(s, Absent)]
    write_file(file, _render(facts, sections, absent), OutputError, PAGE.hint)
    return WrittenReport(file, absent, facts.left_out)


def _build_sections(facts: Facts, samples: int, checkpoint: str, trust: list[str]) -> Iterator[Section | Absent]:
    """Yield the sections in the order of the page."""
    encoded, source = None, None
    why, why_no_shards = "left out on request; without --samples 0 it is drawn", ""
    if samples:
        # a checkpoint that was asked for must be there; without the last one the other sections are still useful
        chosen = encode_samples(facts.folder, trust, samples, checkpoint) if checkpoint != "last" else None
        encoded, why = _attempt(lambda: chosen or encode_samples(facts.folder, trust, samples))
        source, why_no_shards = _attempt(lambda: _open_training(facts))
    yield show_summary(facts, encoded, len(source) if source else None)
    yield show_diagnosis(facts)
    yield show_curves(facts)
    yield show_bounds(facts)
    yield show_plane(facts)
    yield _show_views(encoded, source) if encoded and source else Absent(Views.title, why or why_no_shards)
    yield show_neighbours(encoded) if encoded else Absent(Neighbours.title, why)
    yield show_maps(encoded) if encoded else Absent(Maps.title, why)
    yield show_embedding(encoded) if encoded else Absent(Embedding.title, why)
    yield show_probes(facts)
    yield show_mispaired(facts, encoded and encoded.run, [s for s in (encoded and encoded.source, source) if s])
    yield show_pace(facts)
    yield show_origin(facts)


def _attempt(work: Callable[[], T]) -> tuple[T | None, str]:
    """Return a result and "", or None and the reason why there is none."""
    try:
        return work(), ""
    except MvsslError as error:
        return None, str(error)


def _open_training(facts: Facts) -> ShardSource:
    data = facts.recipe.data
    return open_shards(data.train, data.folder, data.columns, missing=data.missing, progress=False)


def _show_views(encoded: EncodedSamples, source: ShardSource) -> Section | Absent:
    views, why = _attempt(lambda: show_views(encoded.run, source))
    return views or Absent(Views.title, why)


def _render(facts: Facts, sections: list[Section], absent: list[Absent]) -> str:
    """Return the page as HTML. Every text is escaped by the template, except the SVG that matplotlib wrote."""
    environment = Environment(
        loader=PackageLoader("mvssl.reporting", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    by_reason: dict[str, list[str]] = {}
    for part in absent:
        by_reason.setdefault(part.why, []).append(part.title)
    objectives = " + ".join(objective.name for objective in facts.recipe.objective)
    return environment.get_template("page.html.j2").render(
        title=facts.name,
        lead=f"{objectives} on {', '.join(facts.recipe.views)}: {counted(facts.step, 'step')}, {describe_state(facts)}",
        sections=sections,
        absent={", ".join(titles): why for why, titles in by_reason.items()},
        version=__version__,
        now=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )
