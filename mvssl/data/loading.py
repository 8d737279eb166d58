"""Batches, addressed by their place in the run.

in   a source, a batch size, a seed, and which steps
out  torch's `DataLoader` of `Batch`; the batch of a step does not depend on what came before it

A process holds a contiguous block of the global batch, so that blocks in rank order are the one-process batch. A sample
that cannot be used is replaced by another, chosen by a hash of its position, and recorded in `Batch.bad`.
"""

import atexit
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch import Generator
from torch.utils.data import DataLoader, Dataset

from mvssl.data.batch import Batch, Sample, stack_samples
from mvssl.data.dataset_source import MapStyle, Source, as_source
from mvssl.data.order import Order
from mvssl.data.sample_errors import BadSample, SampleError, Unreadable, Vanished
from mvssl.data.workers import POLL, make_room_for_descriptors, next_batch, started
from mvssl.errors import DataError, MvsslError, RecipeError, StorageError
from mvssl.process.signals import ignore_signals
from mvssl.text import counted

ATTEMPTS = 8  # samples tried in place of a bad one


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
) -> "Loader":
    """Steps `start_step` to `stop_step` of the run with `batch_size` samples over all processes, this process's block.

    Raises `RecipeError` where the processes do not divide the batch, `DataError` where the source is smaller than it;
    iteration raises `DataError` where a sample and all that were tried in its place are bad.
    """
    source = as_source(source)
    if batch_size % world:
        below, above = batch_size // world * world, (batch_size // world + 1) * world
        fitting = [count for count in range(1, batch_size + 1) if batch_size % count == 0]
        raise RecipeError(
            f"data.batch_size: {batch_size} samples cannot be shared evenly by {world} processes; take a multiple of "
            f"{world}, such as {f'{below} or ' if below else ''}{above}, or start one of these numbers of processes: "
            f"{', '.join(str(count) for count in fitting[:12])}"
        )
    if len(source) < batch_size:
        left = f" ({source.dropped} more lack a column)" if source.dropped else ""
        raise DataError(
            f"the data hold {counted(len(source), 'sample')}{left}, fewer than one batch of {batch_size}; "
            f"set data.batch_size to at most {len(source)}, or name more shards in data.train"
        )
    reader = _Training(source, Order(len(source), seed), batch_size // world, batch_size, rank)
    return Loader(reader, range(start_step, stop_step), workers, pin_memory)


def sequential_loader(
    source: Source | MapStyle,
    *,
    batch_size: int,
    workers: int = 0,
    start: int = 0,
    stop: int | None = None,
    pin_memory: bool = False,
    may_be_none: bool = False,
) -> "Sequential":
    """Every sample from `start` to `stop` once, in index order: position == index, and the last batch may be short.

    A bad sample is left out, not replaced, and recorded. Iteration raises `StorageError` where disk or network fail,
    `DataError` where all samples are bad; with `may_be_none`, for one process's block of a source, it ends
    without a batch.
    """
    source = as_source(source)
    stop = len(source) if stop is None else min(stop, len(source))
    reader = _Once(source, start, stop, batch_size)
    made = Sequential(reader, range(max(0, -(-(stop - start) // batch_size))), workers, pin_memory)
    made.may_be_none = may_be_none
    return made


class Loader(DataLoader):
    """torch's `DataLoader` over steps, each of which the reader makes into a whole `Batch`.

    `stopped` is asked once a second while a batch is awaited; where it is true the batches end.
    """

    def __init__(self, reader: "_Reader", steps: range, workers: int, pin_memory: bool):
        super().__init__(
            reader,
            batch_size=None,  # the reader stacks
            sampler=steps,
            num_workers=workers,
            timeout=POLL if workers else 0,
            pin_memory=pin_memory,
            collate_fn=_as_it_is,
            worker_init_fn=_ignore_signals,
            generator=Generator(),  # torch would draw from the global generator, which is not ours to move
        )
        self.stopped: Callable[[], bool] = lambda: False
        self._tensors = 2 + 2 * len(reader.source.forms)  # of a batch: position, index, and columns with their presence

    def __iter__(self) -> Iterator[Batch]:  # pyright: ignore[reportIncompatibleMethodOverride]
        batches = self._batches()
        _LIVE.add(batches)
        return batches

    def _batches(self) -> Iterator[Batch]:
        if self.num_workers:
            make_room_for_descriptors(self.num_workers, self._tensors)
        with started(super().__iter__) as (iterator, workers):
            while (batch := next_batch(iterator, workers, self.stopped)) is not None:
                if isinstance(batch, MvsslError):  # torch would wrap the text of an exception in a stack trace
                    raise batch
                yield batch


class Sequential(Loader):
    """A `Loader` that hands the records of a batch in which everything was bad to its neighbour."""

    may_be_none = False

    def _batches(self) -> Iterator[Batch]:
        held, homeless = None, []
        for batch in super()._batches():
            if not len(batch.index):
                (homeless if held is None else held.bad).extend(batch.bad)
                continue
            if held is not None:
                yield held
            held, homeless = batch._replace(bad=homeless + batch.bad), []
        if homeless and not self.may_be_none:
            raise DataError(f"none of {len(homeless)} samples could be used; {homeless[0].key}: {homeless[0].reason}")
        if held is not None:
            yield held


class _Reader(Dataset):
    """Reads batches of one source."""

    def __init__(self, source: Source):
        self.source = source

    def _stack(self, samples: list[Sample], position, index, bad: list[BadSample]) -> Batch:
        position, index = np.asarray(position, np.int64), np.asarray(index, np.int64)
        return stack_samples(samples, self.source.forms, self.source.optional, position, index, bad)

    def _bad(self, position: int, index: int, error: SampleError, substitute: str) -> BadSample:
        key, shard = self.source.key(index), self.source.shard(index)
        return BadSample(position, key, shard, error.column, error.reason, substitute)


class _Training(_Reader):
    """Step -> this process's block of the global batch, every row filled."""

    def __init__(self, source: Source, order: Order, rows: int, batch_size: int, rank: int):
        super().__init__(source)
        self.order, self.rows, self.batch_size, self.rank = order, rows, batch_size, rank

    def __getitem__(self, step: int) -> Batch | DataError | StorageError:
        begin = step * self.batch_size + self.rank * self.rows
        position = np.arange(begin, begin + self.rows)
        index, samples, bad = self.order(position), [], []
        try:
            for row, place in enumerate(position.tolist()):
                wanted = int(index[row])
                sample = self._read(wanted)
                if isinstance(sample, SampleError):
                    error = sample
                    index[row], sample = self._stand_in(place)
                    if isinstance(sample, SampleError):
                        return DataError(
                            f"sample {self.source.key(wanted)} of {self.source.shard(wanted)} is bad "
                            f"({error.column}: {error.reason}), and so are {ATTEMPTS} others tried in its place; "
                            "`mvssl verify` lists what is wrong with the shards"
                        )
                    bad.append(self._bad(place, wanted, error, self.source.key(int(index[row]))))
                samples.append(sample)
        except Unreadable as error:
            return StorageError(f"{error}; once it can be read again, the same command goes on")
        return self._stack(samples, position, index, bad)

    def _read(self, index: int) -> Sample | SampleError:
        """The sample, or why it is bad. Raises `Unreadable` where the disk fails, which says nothing of the sample."""
        try:
            return self.source[index]
        except SampleError as error:
            if isinstance(error, Unreadable) and not isinstance(error, Vanished):
                raise
            return error

    def _stand_in(self, position: int) -> tuple[int, Sample | SampleError]:
        """The first good sample of those to try at a position, or the last of them."""
        index, sample = 0, SampleError("not tried")
        for attempt in range(1, ATTEMPTS + 1):
            index = self.order.stand_in(position, attempt)
            sample = self._read(index)
            if not isinstance(sample, SampleError):
                break
        return index, sample


class _Once(_Reader):
    """Number -> that batch of the source in index order, bad samples left out."""

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
            except Unreadable as error:  # left out, it would be missing from what is measured for no fault of its own
                return StorageError(f"{error}; once it can be read again, the same command goes on")
            except SampleError as error:
                bad.append(self._bad(i, i, error, ""))
        return self._stack(samples, index, index, bad)


def _as_it_is(batch: Any) -> Any:
    return batch


def _ignore_signals(_: int) -> None:
    """A scheduler signals every process; the training process decides, saves, and only then ends its workers."""
    ignore_signals()


_LIVE: "weakref.WeakSet[Iterator[Batch]]" = weakref.WeakSet()


@atexit.register
def _stop_workers() -> None:
    """Close what a run left open: multiprocessing would end workers with SIGTERM, which they ignore, and wait."""
    for batches in list(_LIVE):
        batches.close()  # pyright: ignore[reportAttributeAccessIssue]
