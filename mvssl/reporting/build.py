"""From a run folder to a page: gather what there is, look at a few samples, write one HTML file.

in   a run folder, finished or still in training
out  RUN/report.html, and a list of the parts whose data are absent
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from mvssl import __version__
from mvssl.data import ShardSource, open_shards
from mvssl.distributed.devices import enough_memory
from mvssl.errors import MvsslError, OutputError
from mvssl.files import PAGE, check_output, write_file
from mvssl.reporting.gather import Facts, gather
from mvssl.reporting.page import page
from mvssl.reporting.samples import Look, look
from mvssl.reporting.sections import Absent, Section
from mvssl.reporting.sections.bounds import bounds, plane
from mvssl.reporting.sections.curves import curves
from mvssl.reporting.sections.embedding import embedding
from mvssl.reporting.sections.maps import maps
from mvssl.reporting.sections.mispaired import mispaired
from mvssl.reporting.sections.neighbours import neighbours
from mvssl.reporting.sections.origin import origin
from mvssl.reporting.sections.pace import pace
from mvssl.reporting.sections.probes import probes
from mvssl.reporting.sections.sheet import sheet
from mvssl.reporting.sections.summary import state, summary
from mvssl.reporting.sections.verdict import verdict
from mvssl.runs.load import LoadedRun, packages, refuse_untrusted
from mvssl.text import counted

SAMPLES = 1000  # that are encoded: seconds on two CPU cores for the recipes that come with mvssl
T = TypeVar("T")
LOOKED_AT = {"Nearest neighbours": neighbours, "Local maps": maps, "Map of the embedding": embedding}


class Written(NamedTuple):
    """The page, the parts that it lacks, and what of the run's files is left out, as it could not be read."""

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
) -> Written:
    """Write the report on a run, by default to RUN/report.html; `samples` 0 leaves out what needs model and data.

    Of a `LoadedRun` the folder and the checkpoint are taken; `checkpoint` and `trust` are for a run folder.
    Samples are shown to the weights of `checkpoint`: last, best, or a step, as `load_run` has them. A recipe read back
    may name classes outside mvssl only from packages listed in `trust`. Raises `DataError` where the folder is no run
    or has no such checkpoint, `RecipeError` where its recipe cannot be used, `OutputError` where the page cannot be
    written.
    """
    if isinstance(run, LoadedRun):
        run, checkpoint, trust = run.folder, run.which, packages(run.recipe)
    facts = gather(Path(run))
    refuse_untrusted(facts.recipe, trust)
    file = Path(out) if out else facts.folder / "report.html"
    check_output(file, PAGE)
    made = list(_sections(facts, samples, str(checkpoint), list(trust)))
    present, absent = [p for p in made if isinstance(p, Section)], [p for p in made if isinstance(p, Absent)]
    terms = " + ".join(term.name for term in facts.recipe.objective)
    lead = f"{terms} on {', '.join(facts.recipe.views)}: {counted(facts.step, 'step')}, {state(facts)}"
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    foot = f"Written by mvssl {__version__} on {now}. This file is complete: it fetches nothing."
    text = page(facts.name, lead, present, absent, foot)
    write_file(file, text, OutputError, PAGE.hint)
    return Written(file, absent, facts.left_out)


def _sections(facts: Facts, samples: int, checkpoint: str, trust: list[str]) -> Iterator[Section | Absent]:
    """The parts in the order of the page."""
    looked, source = None, None
    why = "left out on request; without --samples 0 it is drawn"
    if samples:
        # whoever names a checkpoint wants that one; without the last one the rest is still worth reading
        named = look(facts.folder, trust, samples, checkpoint) if checkpoint != "last" else None
        looked, why = _try(lambda: named or look(facts.folder, trust, samples))
        source, lacks = _try(lambda: _training(facts))
    yield summary(facts, looked, len(source) if source else None)
    yield verdict(facts)
    yield curves(facts)
    yield bounds(facts)
    yield plane(facts)
    yield _sheet(looked, source) if looked and source else Absent("Views", why if not looked else lacks)
    for title, part in LOOKED_AT.items():
        yield part(looked) if looked else Absent(title, why)
    yield probes(facts)
    yield mispaired(facts, looked and looked.run, [s for s in (looked and looked.source, source) if s])
    yield pace(facts)
    yield origin(facts)


def _try(work: Callable[[], T]) -> tuple[T | None, str]:
    """A result, or the sentence that says why there is none."""
    try:
        return work(), ""
    except MvsslError as error:
        return None, str(error)


def _training(facts: Facts) -> ShardSource:
    data = facts.recipe.data
    return open_shards(data.train, data.folder, data.columns, missing=data.missing, progress=False)


def _sheet(looked: Look, source: ShardSource) -> Section | Absent:
    found, why = _try(lambda: sheet(looked.run, source))
    return found or Absent("Views", why)
