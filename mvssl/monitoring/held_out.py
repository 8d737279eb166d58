"""Held-out samples seen with the weights of the moment, in eval mode and with draws that never change.

in   a `Trainer`, data.val, and labelled training samples where there are labels
out  loss and metrics of the objective on data.val; clean features and labels of both sets; the run is left as it was

The same samples meet the same draws at every check, and schedules stand where the run will end (MIB's beta at its
last value), so the numbers move with the weights alone.
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
from mvssl.random import hash_name
from mvssl.recipe import Data
from mvssl.text import counted, warn
from mvssl.training.guard import Buffers
from mvssl.training.step import Trainer

LABEL = "label"


class Seen(NamedTuple):
    """Clean features of the samples of all processes, the same on each, in the order of their positions."""

    vectors: dict[str, Tensor]  # by the recipe's view, [n, d]
    present: dict[str, Tensor]  # bool [n] of the views that samples may lack
    labels: Tensor | None  # int64 [n] or multi-hot [n, c]; negative or all 0 where there is none; None: no classes
    index: Tensor  # int64 [n]


@dataclass(frozen=True)
class HeldOut:
    """What checks look at: the first `steps` batches of `source`, and of `bank`, in the run's order.

    The same on any number of processes, unless data.val is smaller than a batch and they do not divide it.
    """

    source: Source
    batch_size: int
    steps: int
    bank: Source | None = None  # training samples with labels
    bank_steps: int = 0

    @property
    def samples(self) -> int:
        """Held-out samples that a check looks at."""
        return self.batch_size * self.steps

    @property
    def name(self) -> str:
        """One name for the samples and how they are batched: losses of one name can be compared."""
        told = json.dumps([self.source.fingerprint, self.batch_size, self.steps])
        return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()


def open_held_out(trainer: Trainer, val: Any = None) -> HeldOut | None:
    """The samples of data.val, or of the dataset `val`, that checks will see; None where there are none.

    Raises `DataError` where data.val cannot be read or holds other columns than the training data.
    """
    table, world, samples = trainer.recipe.data, collectives.world(), trainer.recipe.train.check_samples
    if val is None and not table.val:
        return None
    try:
        source = as_source(val) if val is not None else _open(table, table.val)
    except DataError as error:
        raise DataError(
            f"{error}; these are the held-out shards of checks, data.val: name yours, or data.val=[] to train without"
        ) from None
    for name in {trainer.views.source_of(view) for view in trainer.views.names}:
        here, there = source.shapes.get(name), trainer.source.shapes[name]
        if here != there:
            raise DataError(
                f"data.val: column {name} is {here or 'absent'}, in the training data it is {there}; "
                f"set data.columns.{name}.size, or train.check_every=0 to train without checks"
            )
    batch_size = min(table.batch_size, len(source) // world * world)
    if not batch_size:
        raise DataError(
            f"data.val holds {counted(len(source), 'sample')}, fewer than there are processes; train.check_every=0"
        )
    steps = max(1, min(samples, len(source)) // batch_size)
    bank = _bank(trainer, source)
    most = 0 if bank is None else max(1, min(2 * samples, len(bank)) // table.batch_size)
    return HeldOut(source, batch_size, steps, bank, most)


def _bank(trainer: Trainer, source: Source) -> Source | None:
    """Training samples with labels, if both sides have them and they fill a batch."""
    table, found = trainer.recipe.data, trainer.source
    if table.label is not None and isinstance(found, ShardSource):
        found = _open(table, table.train, labelled=True)
    labelled = LABEL in source.shapes and LABEL in found.shapes
    return found if labelled and len(found) >= table.batch_size else None


def _open(table: Data, patterns: str | list[str], labelled: bool = False) -> Source:
    """Shards with the column `label` where they have one; samples without one are among them unless `labelled`.

    Of labels inside json no index tells who has one: there they are among them always.
    """
    keep = not labelled or (table.label is not None and is_inside_json(table.label))
    missing = "mask" if table.missing == "mask" else "drop"
    return collectives.run_main_first(
        lambda: open_labelled(table, patterns, required=False, keep_unlabelled=keep, missing=missing, progress=False)
    )


def measure(
    trainer: Trainer, held: HeldOut, stopped: Callable[[], bool] = lambda: False
) -> tuple[dict[str, float], Seen] | None:
    """Mean loss and metrics of the objective over the held-out batches, and their clean features.

    None where a process was asked to stop meanwhile. Every process must call it.
    """
    seed, device = hash_name("check", trainer.recipe.train.seed), trainer.accelerator.device
    sums: dict[str, Tensor] = {}
    seen = []
    with at_rest(trainer.model):
        for number, batch in enumerate(_batches(trainer, held.source, held.batch_size, held.steps, stopped)):
            if _asked(stopped(), device):
                return None
            torch.manual_seed(hash_name(seed, number, collectives.rank()))  # for a view of the user's own
            views = trainer.views(batch, seed, device)
            loss, metrics = trainer.model(views, trainer.context(batch, trainer.steps - 1, seed))
            for name, value in {"loss": loss, **metrics}.items():
                sums[name] = sums.get(name, 0) + value.detach().float()
            seen.append(_seen(trainer, batch))
    if _asked(stopped(), device):  # perhaps before the last batch
        return None
    values = (torch.stack(list(sums.values())) / held.steps).tolist()
    return dict(zip(sums, values, strict=True)), _joined(seen)


def features(
    trainer: Trainer, source: Source, batch_size: int, steps: int, stopped: Callable[[], bool] = lambda: False
) -> Seen | None:
    """Clean features of the first `steps` batches of a source; None where a process was asked to stop meanwhile."""
    seen = []
    with at_rest(trainer.model):
        for batch in _batches(trainer, source, batch_size, steps, stopped):
            if _asked(stopped(), trainer.accelerator.device):
                return None
            seen.append(_seen(trainer, batch))
    return None if _asked(stopped(), trainer.accelerator.device) else _joined(seen)


@contextlib.contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradient; afterwards modes and buffers are what they were, whatever forward did to them."""
    modes = {module: module.training for module in model.modules()}
    buffers = Buffers(model)
    buffers.remember()
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training
        with torch.no_grad():
            buffers.restore_where(torch.ones((), dtype=torch.bool, device=next(model.parameters()).device))


def _batches(trainer: Trainer, source: Source, batch_size: int, steps: int, stopped: Callable[[], bool]) -> Loader:
    batches = loader(
        source, batch_size=batch_size, seed=trainer.recipe.train.seed, stop_step=steps, rank=collectives.rank(),
        world=collectives.world(), workers=trainer.recipe.data.workers,
    )  # fmt: skip
    if collectives.world() == 1:  # several processes must end a check after the same batch
        batches.stopped = stopped
    return batches


def _asked(stopped: bool, device: torch.device) -> bool:
    """Whether any process was asked to stop."""
    return collectives.total(torch.tensor(float(stopped), device=device)).item() > 0


def _seen(trainer: Trainer, batch: Batch) -> Seen:
    device = trainer.accelerator.device
    clean = trainer.views.clean(batch, device)
    there = trainer.present(batch, clean)
    found = trainer.model.encode(clean, there)
    vectors = {view: collectives.gather(feature.vector.float()) for view, feature in found.items()}
    present = {view: collectives.gather(rows.to(device).float()) > 0 for view, rows in there.items()}
    return Seen(vectors, present, _labels(batch, device), collectives.gather(batch.index.to(device)))


def _labels(batch: Batch, device: torch.device) -> Tensor | None:
    """Labels of all processes; -1, or a row of -1, where a sample has none. None, alike on each, for no classes."""
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


def _joined(parts: list[Seen]) -> Seen:
    first = parts[0]
    return Seen(
        {view: torch.cat([part.vectors[view] for part in parts]) for view in first.vectors},
        {view: torch.cat([part.present[view] for part in parts]) for view in first.present},
        None if any(part.labels is None for part in parts) else torch.cat([part.labels for part in parts]),  # pyright: ignore
        torch.cat([part.index for part in parts]),
    )
