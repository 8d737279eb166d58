"""From a run folder to a page: compute the sections, and write one HTML file.

in   a run folder, finished or still in training
out  RUN/report.html, and a list of the sections whose data are absent
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from mvssl import __version__
from mvssl.distributed.devices import enough_memory
from mvssl.errors import MvsslError, OutputError
from mvssl.files import PAGE, check_output, write_file
from mvssl.reporting.content import Absent, Block, Section
from mvssl.reporting.inputs import Inputs, open_inputs
from mvssl.reporting.run_files import RunFiles, read_run_files
from mvssl.reporting.sections.bounds import show_bounds, show_plane
from mvssl.reporting.sections.curves import show_curves, show_pace
from mvssl.reporting.sections.diagnosis import show_diagnosis
from mvssl.reporting.sections.embedding import show_embedding
from mvssl.reporting.sections.maps import show_maps
from mvssl.reporting.sections.mispaired import show_mispaired
from mvssl.reporting.sections.neighbours import show_neighbours
from mvssl.reporting.sections.origin import show_origin
from mvssl.reporting.sections.probes import show_probes
from mvssl.reporting.sections.sheet import show_views
from mvssl.reporting.sections.summary import describe_state, show_summary
from mvssl.runs.load import LoadedRun, foreign_packages, open_run, refuse_untrusted
from mvssl.text import counted

SAMPLES = 1000  # encoded by default: some seconds on two CPU cores for the recipes that come with mvssl
SECTIONS: dict[str, tuple[str, Callable[[Inputs], list[Block]]]] = {  # by address, in the order of the page
    "summary": ("Summary", show_summary),
    "verdict": ("Diagnosis", show_diagnosis),
    "curves": ("Training curves", show_curves),
    "bounds": ("Bounds per pair of views", show_bounds),
    "plane": ("Information plane", show_plane),
    "views": ("Views", show_views),
    "neighbours": ("Nearest neighbours", show_neighbours),
    "maps": ("Local maps", show_maps),
    "embedding": ("Map of the embedding", show_embedding),
    "probes": ("Probes", show_probes),
    "mispaired": ("Mispaired samples", show_mispaired),
    "pace": ("Throughput", show_pace),
    "origin": ("Recipe and versions", show_origin),
}


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
    """Write the report on a run, by default to RUN/report.html.

    With `samples=0`, the sections that need model and data are left out. `checkpoint` is last, best or a step: its
    weights compute the features of the samples, see `load_run`. Classes outside mvssl are allowed only from the
    packages in `trust`. A `LoadedRun` has its own checkpoint and trusted packages.

    Raise `DataError` if the folder is not a run or has no such checkpoint. Raise `RecipeError` if its recipe cannot be
    used, and `OutputError` if the page cannot be written.
    """
    if isinstance(run, LoadedRun):
        run = open_run(run, trust, checkpoint)
        run, checkpoint, trust = run.folder, run.which, foreign_packages(run.recipe)
    facts, trust = read_run_files(Path(run)), list(trust)
    refuse_untrusted(facts.recipe, trust)
    file = Path(out) if out else facts.folder / "report.html"
    check_output(file, PAGE)
    inputs = open_inputs(facts, samples, str(checkpoint), trust)
    sections, absent = [], []
    for name, (title, show) in SECTIONS.items():
        try:
            sections.append(Section(name, title, show(inputs)))
        except MvsslError as error:
            absent.append(Absent(title, str(error)))
    write_file(file, _render(facts, sections, absent), OutputError, PAGE.hint)
    return WrittenReport(file, absent, facts.left_out)


def _render(facts: RunFiles, sections: list[Section], absent: list[Absent]) -> str:
    """Return the page as HTML. Every text is escaped by the template, except the SVG that matplotlib wrote."""
    environment = Environment(
        loader=PackageLoader("mvssl.reporting", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["kind"] = lambda block: type(block).__name__
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
