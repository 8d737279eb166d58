"""Batches of a source, by the number of the step.

in   a source, a batch size, a seed, and which steps
out  torch's `DataLoader` of `Batch`; the batch of a step does not depend on what was loaded before it

Each process reads a contiguous block of the global batch. The blocks in rank order are the batch of one process. A
sample that cannot be used is recorded in `Batch.bad`. A hash of its position chooses the sample that replaces it.
"""

import atexit
import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import Generator, Tensor
from torch.utils.data import DataLoader, Dataset

from mvssl.data.batch import Batch
from mvssl.data.dataset_source import MapStyle, as_source
from mvssl.data.drawn import DrawnParameters
from mvssl.data.order import Order
from mvssl.data.sample_errors import BadSample, ReadError, SampleError, ShardGoneError
from mvssl.data.source import Source
from mvssl.data.workers import POLL, next_batch, raise_open_file_limit, start_workers
from mvssl.errors import DataError, MvsslError, RecipeError, StorageError
from mvssl.process.signals import ignore_signals
from mvssl.text import counted

DrawParameters = Callable[[Tensor], DrawnParameters]  # receives the positions, int64 [n]
SUBSTITUTES = 8  # samples tried in place of a bad one


def loader(
    source: Source | MapStyle,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    stop_step: int,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
    draw: DrawParameters | None = None,
) -> "Loader":
    """Return the batches from `start_step` to `stop_step`; `stop_step` is not included.

    `batch_size` counts the samples of all processes. Each batch holds this process's part. `draw` gets the positions of
    a batch, in the worker that reads it, and what it returns becomes `Batch.drawn`.

    Raise `RecipeError` if the batch size is not a multiple of the number of processes. Raise `DataError` if the source
    is smaller than a batch.
    Iteration raises `DataError` if a sample and all its substitutes are bad, `StorageError` if reading fails.
    """
    source = as_source(source)
    if batch_size % world:
        below, above = batch_size // world * world, (batch_size // world + 1) * world
        divisors = [count for count in range(1, batch_size + 1) if batch_size % count == 0]
        raise RecipeError(
            f"data.batch_size: {batch_size} samples cannot be shared evenly by {world} processes; take a multiple of "
            f"{world}, such as {f'{below} or ' if below else ''}{above}, or start one of these numbers of processes: "
            f"{', '.join(str(count) for count in divisors[:12])}"
        )
    if len(source) < batch_size:
        dropped = f" ({source.dropped} more lack a column)" if source.dropped else ""
        raise DataError(
            f"the data hold {counted(len(source), 'sample')}{dropped}, fewer than one batch of {batch_size}; "
            f"set data.batch_size to at most {len(source)}, or name more shards in data.train"
        )
    reader = _ShuffledReader(source, Order(len(source), seed), batch_size // world, batch_size, rank, draw)
    return Loader(reader, range(start_step, stop_step), workers, pin_memory)


def sequential_loader(
    source: Source | MapStyle,
    *,
    batch_size: int,
    workers: int = 0,
    start: int = 0,
    stop: int | None = None,
    pin_memory: bool = False,
    may_be_empty: bool = False,
) -> "SequentialLoader":
    """Return every sample from `start` to `stop` once, in index order. Position and index are equal.

    The last batch may be smaller. A bad sample is recorded and left out. It is not replaced.

    Iteration raises `StorageError` if disk or network fail, and `DataError` if all samples are bad. With
    `may_be_empty` it then ends without a batch instead. This is meant for one process's block of a source.
    """
    source = as_source(source)
    stop = len(source) if stop is None else min(stop, len(source))
    reader = _SequentialReader(source, start, stop, batch_size)
    batches = range(max(0, -(-(stop - start) // batch_size)))
    return SequentialLoader(reader, batches, workers, pin_memory, may_be_empty)


class Loader(DataLoader):
    """torch's `DataLoader` over steps. The reader makes each step into a complete `Batch`.

    `stopped` is called once a second while the loop waits for a batch. When it returns true, the batches end.
    """

    def __init__(self, reader: "_Reader", steps: range, workers: int, pin_memory: bool):
        super().__init__(
            reader,
            batch_size=None,  # the reader stacks
            sampler=steps,
            num_workers=workers,
            timeout=POLL if workers else 0,
            pin_memory=pin_memory,
            collate_fn=_identity,
            worker_init_fn=_ignore_signals,
            generator=Generator(),  # torch would draw from the global generator, which is not ours to move
        )
        self.stopped: Callable[[], bool] = lambda: False
        self._tensors = 3 + 2 * len(
            reader.source.specs
        )  # of a batch: position, index, drawn, and columns with their presence

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        batches = self._batches()
        _ACTIVE.add(batches)
        return batches

    def _batches(self) -> Iterator[Batch]:
        if self.num_workers:
            raise_open_file_limit(self.num_workers, self._tensors)
        with start_workers(super().__iter__) as (iterator, workers):
            while (batch := next_batch(iterator, workers, self.stopped)) is not None:
                if isinstance(batch, MvsslError):  # torch would wrap the text of an exception in a stack trace
                    raise batch
                yield batch


class SequentialLoader(Loader):
    """A `Loader` without empty batches: their records of bad samples go to the batch before or after."""

    def __init__(self, reader: "_Reader", steps: range, workers: int, pin_memory: bool, may_be_empty: bool):
        super().__init__(reader, steps, workers, pin_memory)
        self._may_be_empty = may_be_empty

    def _batches(self) -> Iterator[Batch]:
        previous, waiting = None, []  # records of empty batches before the first batch
        for batch in super()._batches():
            if not len(batch.index):
                (waiting if previous is None else previous.bad).extend(batch.bad)
                continue
            if previous is not None:
                yield previous
            previous, waiting = batch._replace(bad=waiting + batch.bad), []
        if waiting and not self._may_be_empty:
            raise DataError(f"none of {len(waiting)} samples could be used; {waiting[0].key}: {waiting[0].reason}")
        if previous is not None:
            yield previous


class _Reader(Dataset):
    """Number of a batch -> that batch of one source, or the error that ends the run."""

    def __init__(self, source: Source):
        self.source = source

    def _record(self, position: int, index: int, error: SampleError, substitute: str = "") -> BadSample:
        key, shard = self.source.key(index), self.source.shard(index)
        return BadSample(position, key, shard, error.column, error.reason, substitute)


class _ShuffledReader(_Reader):
    """Step -> this process's block of the global batch, every row filled."""

    def __init__(
        self, source: Source, order: Order, rows: int, batch_size: int, rank: int, draw: DrawParameters | None
    ):  # fmt: skip
        super().__init__(source)
        self.order, self.rows, self.batch_size, self.rank, self.draw = order, rows, batch_size, rank, draw

    def __getitem__(self, step: int) -> Batch | DataError | StorageError:
        begin = step * self.batch_size + self.rank * self.rows
        position = np.arange(begin, begin + self.rows)
        index, samples, bad = self.order(position), [], []
        for row, place in enumerate(position.tolist()):
            first, errors = int(index[row]), []
            substitutes = (self.order.substitute(place, attempt) for attempt in range(1, SUBSTITUTES + 1))
            for number in itertools.chain([first], substitutes):
                try:
                    samples.append(self.source[number])
                except SampleError as error:
                    if isinstance(error, ReadError) and not isinstance(error, ShardGoneError):
                        return _storage_error(error)  # the disk fails, and the sample may be good
                    errors.append(error)
                else:
                    break
            else:
                return DataError(
                    f"sample {self.source.key(first)} of {self.source.shard(first)} is bad ({errors[0].column}: "
                    f"{errors[0].reason}), and so are {SUBSTITUTES} others tried in its place; `mvssl verify` lists "
                    "what is wrong with the shards"
                )
            if errors:
                index[row] = number
                bad.append(self._record(place, first, errors[0], self.source.key(number)))
        batch = self.source.stack(samples, position, index, bad)
        return batch if self.draw is None else batch._replace(drawn=self.draw(batch.position))


class _SequentialReader(_Reader):
    """Number -> that batch of the source in index order, without bad samples."""

    def __init__(self, source: Source, start: int, stop: int, batch_size: int):
        super().__init__(source)
        self.start, self.stop, self.batch_size = start, stop, batch_size

    def __getitem__(self, number: int) -> Batch | StorageError:
        begin = self.start + number * self.batch_size
        samples, index, bad = [], [], []
        for i in range(begin, min(begin + self.batch_size, self.stop)):
            try:
                samples.append(self.source[i])
                index.append(i)
            except ReadError as error:  # a good sample must not be missing from what is measured
                return _storage_error(error)
            except SampleError as error:
                bad.append(self._record(i, i, error))
        return self.source.stack(samples, index, index, bad)


def _storage_error(error: ReadError) -> StorageError:
    return StorageError(f"{error}; once it can be read again, the same command continues the run")


def _identity(batch: Any) -> Any:
    return batch


def _ignore_signals(_: int) -> None:
    """Ignore signals in a worker. A scheduler signals every process; the training process saves, then ends workers."""
    ignore_signals()


_ACTIVE: "weakref.WeakSet[Iterator[Batch]]" = weakref.WeakSet()


@atexit.register
def _close_active() -> None:
    """Close what a run left open: multiprocessing would end workers with SIGTERM, which they ignore, and wait."""
    for batches in list(_ACTIVE):
        batches.close()  # pyright: ignore[reportAttributeAccessIssue]
