"""The commands that are useful after a run, as lines to paste into a shell.

in   an opened run; whether its export and evaluation are done
out  lines of shell; each command was tested first with the checks that it makes of its inputs
"""

import itertools
import shlex
import shutil
from collections.abc import Callable
from functools import partial

from mvssl.data import as_class_labels
from mvssl.errors import DataError, MvsslError
from mvssl.evaluation.features.inputs import distinct_views
from mvssl.evaluation.features.layers import refuse_layer
from mvssl.evaluation.features.splits import SplitSources, open_samples, open_splits, refuse_label_arrays
from mvssl.evaluation.plan import PlannedProbe, list_needs, plan_probes, refuse_impossible
from mvssl.exporting.exporting import folders_of
from mvssl.recipe import Recipe
from mvssl.runs.load import LoadedRun, foreign_packages
from mvssl.text import shell_word

FEW = 16  # samples that are read for these checks


def next_commands(run: LoadedRun, loads: list[str], failed: bool) -> list[str]:
    """Return lines to paste after the run. `loads` load the exports. `failed`: the evaluation failed."""
    train, table, folder = run.recipe.train, run.recipe.evaluate, shell_word(run.folder)
    features, backbone = run.folder / "features.npz", run.folder / "backbone"
    trust = "".join(f" --trust {shlex.quote(package)}" for package in dict.fromkeys(foreign_packages(run.recipe)))
    # options of `mvssl evaluate`, the most useful first, with the probes and the layer that they select
    wanted = [(" --probe retrieval --layer head", ["retrieval"], "head")]
    if not failed:
        evaluated = "evaluate" in train.then
        wanted.insert(0, (" --layer head", table.probes, "head") if evaluated else ("", table.probes, table.layer))
    possible = (options for options, *given in wanted if _is_possible(partial(refuse_evaluation, run, *given)))
    lines = [f"mvssl evaluate {folder}{options}{trust}" for options in itertools.islice(possible, 1)]
    if not lines and _is_possible(lambda: refuse_label_arrays(open_samples(run.recipe)[0])) and not features.exists():
        lines.append(f"mvssl embed {folder} --out {shell_word(features)}{trust}")
    if "report" not in train.then:
        lines.append(f"mvssl report {folder}{trust}")
    if loads:
        lines += loads
    elif _is_possible(lambda: folders_of(list(run.model.encoders), backbone)):
        lines.append(f"mvssl export {folder} {shell_word(backbone)}{trust}")
    tensorboard = (run.folder / "trackers").is_dir() and {"tensorboard", "all"} & {*train.trackers}
    if tensorboard and shutil.which("tensorboard") is not None:
        lines.append(f"tensorboard --logdir {folder}")
    return lines


def _is_possible(refuse: Callable[[], object]) -> bool:
    """Return whether a command would pass its first checks. `refuse` runs these checks."""
    try:
        refuse()
    except MvsslError:
        return False
    return True


def open_for_probes(recipe: Recipe, probes: list[str], layer: str) -> tuple[SplitSources, list[PlannedProbe]]:
    """Return the shards that these probes read, and the planned probes. Raise `MvsslError` if a probe cannot run."""
    refuse_impossible(recipe.evaluate.model_copy(update={"probes": probes}))
    planned = plan_probes(recipe.evaluate, probes, layer)
    return open_splits(recipe, needs=list_needs(planned)), planned


def refuse_evaluation(run: LoadedRun, probes: list[str], layer: str) -> None:
    """Raise `MvsslError` if layer, shards, labels or readable samples are missing, or the views do not differ."""
    for view in run.views.bases:
        refuse_layer(run.model, view, layer, len(run.model.encoder_of(view).widths.maps))
    sources, planned = open_for_probes(run.recipe, probes, layer)
    test = sources.shards["test"]
    some = test.read_batch(range(min(len(test), FEW)))
    if not len(some.index):
        raise DataError(f"none of the first {FEW} samples can be read")
    if list_needs(planned).labels:
        as_class_labels(some.columns["label"])
    if all(each.probe.runs_on == "all views" for each in planned) and len(distinct_views(run.views.clean(some))) < 2:
        raise DataError("the probes compare views, and the run has no two that differ")
