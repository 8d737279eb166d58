"""The commands that are useful after a run, as lines to paste into a shell.

in   an opened run; whether its export and evaluation are done
out  lines of shell; each command is checked first, as far as it would check its own inputs
"""

import shlex
import shutil
from collections.abc import Iterator

from mvssl.data import as_class_labels
from mvssl.errors import MvsslError
from mvssl.evaluation.features.inputs import distinct_views
from mvssl.evaluation.features.layers import refuse_layer
from mvssl.evaluation.features.splits import open_samples, open_splits, refuse_pictures
from mvssl.evaluation.plan import list_needs, plan_probes, refuse_impossible
from mvssl.exporting.exporting import folders_of
from mvssl.runs.load import LoadedRun, packages
from mvssl.text import shell_word

FEATURES = "features.npz"
FEW = 16  # samples that are read for these checks
Evaluation = tuple[str, list[str], str | None]  # what to add to `mvssl evaluate RUN`: probes, and a layer


def next_commands(run: LoadedRun, loads: list[str], failed: bool) -> list[str]:
    """Return lines to type after the run; `loads` load the exports, `failed` says that its evaluation failed."""
    then, folder = run.recipe.train.then, shell_word(run.folder)
    trust = "".join(f" --trust {shlex.quote(package)}" for package in dict.fromkeys(packages(run.recipe)))
    lines = [f"mvssl evaluate {folder}{added}{trust}" for added in _evaluations(run, failed)][:1]
    if not lines and _can_embed(run):
        lines.append(f"mvssl embed {folder} --out {shell_word(run.folder / FEATURES)}{trust}")
    if "report" not in then:
        lines.append(f"mvssl report {folder}{trust}")
    if loads:
        lines += loads
    elif _can_export(run):
        lines.append(f"mvssl export {folder} {shell_word(run.folder / 'backbone')}{trust}")
    if (run.folder / "trackers").is_dir() and {"tensorboard", "all"} & {*run.recipe.train.trackers}:
        lines += [f"tensorboard --logdir {folder}"] * (shutil.which("tensorboard") is not None)
    return lines


def _evaluations(run: LoadedRun, failed: bool) -> Iterator[str]:
    """Yield options for `mvssl evaluate RUN` that are possible, the most useful first."""
    table, done = run.recipe.evaluate, "evaluate" in run.recipe.train.then
    wanted: list[Evaluation] = [(" --layer head", table.probes, "head")] if done else [("", table.probes, None)]
    wanted = [*([] if failed else wanted), (" --probe retrieval --layer head", ["retrieval"], "head")]
    for added, probes, layer in wanted:
        try:
            refuse_impossible(table.model_copy(update={"probes": probes}))
            if _is_possible(run, probes, layer or table.layer):
                yield added
        except MvsslError:
            continue


def _is_possible(run: LoadedRun, probes: list[str], layer: str) -> bool:
    """Return whether there are samples and distinct views. Raises `MvsslError` without layer, shards or labels."""
    jobs = plan_probes(run.recipe.evaluate, probes, layer)
    for view in run.views.bases:
        refuse_layer(run.model, view, layer, len(run.model.encoder_of(view).widths.maps))
    needs = list_needs(jobs)
    sources = open_splits(run.recipe, needs=needs).shards
    some = sources["test"].read_batch(range(min(len(sources["test"]), FEW)))
    if not len(some.index):
        return False
    if needs.labels:
        as_class_labels(some.columns["label"])
    several = len(distinct_views(run.views.clean(some))) > 1
    return several or any(job.probe.runs_on != "all views" for job in jobs)


def _can_embed(run: LoadedRun) -> bool:
    """Return whether there are shards whose labels can be written, and RUN/features.npz does not exist."""
    try:
        refuse_pictures(open_samples(run.recipe)[0])
    except MvsslError:
        return False
    return not (run.folder / FEATURES).exists()


def _can_export(run: LoadedRun) -> bool:
    """Return whether RUN/backbone does not exist, or holds an earlier export."""
    try:
        folders_of(list(run.model.encoders), run.folder / "backbone")
    except MvsslError:
        return False
    return True
