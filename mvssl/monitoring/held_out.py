"""Measures held-out samples with the present weights, in eval mode and with the same draws at every check.

in   a `MonitoredRun`, data.val, and labelled training samples if the data have labels
out  loss and metrics of the objective on data.val; clean features and labels of both sets; the run is unchanged

Schedules have their value at the last step of the run, such as MIB's beta, so only the weights change the numbers.
"""

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mvssl.data import (
    Batch,
    Loader,
    ShardSource,
    Source,
    as_class_labels,
    as_source,
    is_inside_json,
    loader,
)
from mvssl.distributed import collectives
from mvssl.errors import DataError
from mvssl.evaluation.features.splits import open_labelled
from mvssl.model import MultiView, build_context
from mvssl.monitoring.mispairing import MispairingTracker
from mvssl.random import hash_name
from mvssl.recipe import Data, Recipe
from mvssl.text import counted, warn
from mvssl.views import ViewSet

LABEL = "label"


def never_stopped() -> bool:
    """Return False: no request to stop."""
    return False


@dataclass(kw_only=True)
class MonitoredRun:
    """What checks need of a run: its recipe, data and views, and the model with the present weights."""

    recipe: Recipe  # with the statistics that were measured from the data
    source: Source
    views: ViewSet
    model: MultiView
    device: torch.device
    steps: int  # of the run
    tracker: MispairingTracker | None = None  # receives the scores of every step

    def batches(
        self, start: int, stop: int, *, source: Source | None = None, batch_size: int | None = None,
        draw_seed: int | None = None, is_stopped: Callable[[], bool] = never_stopped,
    ) -> Loader:  # fmt: skip
        """Return this process's part of the batches of steps `start` to `stop`, by default of the training samples.

        The loader's workers draw the parameters of the views with `draw_seed`; None: only clean views are wanted.
        A process that is alone ends early when `is_stopped`. Several processes must stop at the same step, so the
        caller stops them.
        """
        batches = loader(
            self.source if source is None else source, batch_size=batch_size or self.recipe.data.batch_size,
            seed=self.recipe.train.seed, start_step=start, stop_step=stop, rank=collectives.rank(),
            world=collectives.world_size(), workers=self.recipe.data.workers, pin_memory=self.device.type == "cuda",
            draw=None if draw_seed is None else functools.partial(self.views.draw, seed=draw_seed),
        )  # fmt: skip
        if collectives.world_size() == 1:
            batches.stopped = is_stopped
        return batches


class CleanFeatures(NamedTuple):
    """Features of clean views for the samples of all processes, in the order of their positions; equal on each."""

    vectors: dict[str, Tensor]  # by the recipe's view, [n, d]
    present: dict[str, Tensor]  # bool [n] of the views that samples may lack
    labels: Tensor | None  # int64 [n] or multi-hot [n, c]; negative or all 0 without a label; None: no classes
    index: Tensor  # int64 [n]


@dataclass(frozen=True)
class FirstBatches:
    """The first `steps` batches of a source, in the order of the run."""

    source: Source
    batch_size: int
    steps: int

    @property
    def samples(self) -> int:
        """How many samples these are."""
        return self.batch_size * self.steps


@dataclass(frozen=True)
class HeldOut(FirstBatches):
    """The samples of checks: held-out ones, and training samples with labels for kNN.

    The same on any number of processes, unless data.val is smaller than a batch and they do not divide it.
    """

    bank: FirstBatches | None = None

    @property
    def name(self) -> str:
        """A name for the held-out samples and their batches: losses of one name can be compared."""
        content = json.dumps([self.source.fingerprint, self.batch_size, self.steps])
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def open_held_out(run: MonitoredRun, val: Any = None) -> HeldOut | None:
    """Open the samples of data.val, or of the dataset `val`, for checks; None if there are none.

    Raises `DataError` if data.val cannot be read or holds other columns than the training data.
    """
    table, world, samples = run.recipe.data, collectives.world_size(), run.recipe.train.check_samples
    if val is None and not table.val:
        return None
    try:
        source = as_source(val) if val is not None else _open(table, table.val)
    except DataError as error:
        raise DataError(
            f"{error}; these are the held-out shards of checks, data.val: name yours, or data.val=[] to train without"
        ) from None
    for name in {run.views.source_of(view) for view in run.views.names}:
        found, expected = source.shapes.get(name), run.source.shapes[name]
        if found != expected:
            raise DataError(
                f"data.val: column {name} is {found or 'absent'}, in the training data it is {expected}; "
                f"set data.columns.{name}.size, or train.check_every=0 to train without checks"
            )
    batch_size = min(table.batch_size, len(source) // world * world)
    if not batch_size:
        raise DataError(
            f"data.val holds {counted(len(source), 'sample')}, fewer than there are processes; train.check_every=0"
        )
    steps = max(1, min(samples, len(source)) // batch_size)
    return HeldOut(source, batch_size, steps, _open_bank(run, source))


def _open_bank(run: MonitoredRun, held_out: Source) -> FirstBatches | None:
    """Return training samples with labels, if both sides have labels and they fill a batch."""
    table, source = run.recipe.data, run.source
    if table.label is not None and isinstance(source, ShardSource):
        source = _open(table, table.train, labelled=True)
    if LABEL not in held_out.shapes or LABEL not in source.shapes or len(source) < table.batch_size:
        return None
    steps = max(1, min(2 * run.recipe.train.check_samples, len(source)) // table.batch_size)
    return FirstBatches(source, table.batch_size, steps)


def _open(table: Data, patterns: str | list[str], labelled: bool = False) -> Source:
    """Open shards with the column `label` if they have one, and without unlabelled samples if `labelled`.

    The index does not know which samples have a label inside json, so these are always read.
    """
    keep = not labelled or (table.label is not None and is_inside_json(table.label))
    missing = "mask" if table.missing == "mask" else "drop"
    return collectives.run_main_first(
        lambda: open_labelled(table, patterns, required=False, keep_unlabelled=keep, missing=missing, progress=False)
    )


def measure(
    run: MonitoredRun, held: HeldOut, is_stopped: Callable[[], bool] = never_stopped
) -> tuple[dict[str, float], CleanFeatures] | None:
    """Return mean loss and metrics of the objective over the held-out batches, and their clean features.

    None if a process was asked to stop meanwhile. Every process must call it.
    """
    seed, device = hash_name("check", run.recipe.train.seed), run.device
    sums: dict[str, Tensor] = {}

    def add_metrics(number: int, batch: Batch) -> None:
        torch.manual_seed(hash_name(seed, number, collectives.rank()))  # for a view of the user
        views = run.views(batch, seed, device)
        loss, metrics = run.model(views, build_context(batch, run.views, run.steps - 1, seed, device))
        for name, value in {"loss": loss, **metrics}.items():
            sums[name] = sums.get(name, 0) + value.detach().float()

    features = encode_batches(run, held, is_stopped, add_metrics, draw_seed=seed)
    if features is None:
        return None
    values = (torch.stack(list(sums.values())) / held.steps).tolist()
    return dict(zip(sums, values, strict=True)), features


def encode_batches(
    run: MonitoredRun, given: FirstBatches, is_stopped: Callable[[], bool] = never_stopped,
    measure_batch: Callable[[int, Batch], None] = lambda number, batch: None, draw_seed: int | None = None,
) -> CleanFeatures | None:  # fmt: skip
    """Return clean features of the batches; None if a process was asked to stop.

    `measure_batch` gets the number of each batch and the batch, in eval mode. It draws views with `draw_seed`, if any.
    """
    parts = []
    with evaluation_mode(run.model):
        batches = run.batches(
            0, given.steps, source=given.source, batch_size=given.batch_size, draw_seed=draw_seed,
            is_stopped=is_stopped,
        )  # fmt: skip
        for number, batch in enumerate(batches):
            if collectives.is_any(is_stopped(), run.device):
                return None
            measure_batch(number, batch)
            parts.append(_encode_clean(run, batch))
    if collectives.is_any(is_stopped(), run.device):  # perhaps before the last batch
        return None
    first = parts[0]
    return CleanFeatures(
        {view: torch.cat([part.vectors[view] for part in parts]) for view in first.vectors},
        {view: torch.cat([part.present[view] for part in parts]) for view in first.present},
        None if any(part.labels is None for part in parts) else torch.cat([part.labels for part in parts]),  # pyright: ignore
        torch.cat([part.index for part in parts]),
    )


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Set eval mode without gradient; afterwards restore modes and buffers, whatever the forward pass changed."""
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


def _encode_clean(run: MonitoredRun, batch: Batch) -> CleanFeatures:
    device = run.device
    clean = run.views.clean(batch, device)
    present = run.views.present(batch, clean)
    found = run.model.encode(clean, present)
    vectors = {view: collectives.gather(feature.vector.float()) for view, feature in found.items()}
    present = {view: collectives.gather(rows.to(device).float()) > 0 for view, rows in present.items()}
    return CleanFeatures(vectors, present, _labels(batch, device), collectives.gather(batch.index.to(device)))


def _labels(batch: Batch, device: torch.device) -> Tensor | None:
    """Return labels of all processes, -1 or a row of -1 for a sample without one; None if they are no classes."""
    labels = batch.columns.get(LABEL)
    if labels is None:
        return None
    labels = labels if labels.is_floating_point() else labels.long()
    if LABEL in batch.present:
        labels = labels.masked_fill(~batch.present[LABEL].view(-1, *[1] * (labels.ndim - 1)), -1)
    everyone = collectives.gather(labels.to(device))
    try:
        return as_class_labels(everyone)
    except DataError:
        _warn_once()
        return None


@functools.cache
def _warn_once() -> None:
    warn("data.label: the labels are no classes, so checks go without kNN; training does not need labels")
