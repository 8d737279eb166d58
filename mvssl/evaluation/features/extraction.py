"""Frozen features of every sample once, on any number of processes, kept in the cache.

in   a source, and descriptions of what is computed of each sample: layers of encoders, clean views, labels
out  on the main process a `cache.Entry` for each, read where it was computed before; None on the others

A process works on a contiguous block of full batches, so every batch is the one that a single process would make. It
sends what it computed to the main process, which alone writes.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from mvssl.data import Batch, ShardSource, sequential_loader
from mvssl.distributed import collectives
from mvssl.distributed.devices import enough_memory
from mvssl.errors import DataError, ElsewhereError, MvsslError
from mvssl.evaluation.features import cache
from mvssl.evaluation.features.cache import Entry
from mvssl.evaluation.features.layers import PIXELS
from mvssl.process.progress import progress_bar
from mvssl.text import counted

DIVERGED = "the encoder has diverged; of a run, --checkpoint STEP takes an earlier one"

LESS = (
    "take one view or a smaller layer at a time (--view, --layer), evaluate.precision=bf16, or a smaller batch "
    "(batch_size of mvssl.evaluation.evaluate and mvssl.embedding.embed)"
)

Arrays = dict[str, Tensor]
Compute = Callable[[Batch, list[int]], list[Arrays]]


class Part(NamedTuple):
    """The result of one batch: sample numbers int64 [k], and for each entry its arrays [k, ...] by name, on the CPU."""

    rows: np.ndarray
    arrays: list[Arrays]


class Collected(NamedTuple):
    """Entries in the order in which they were asked for, and how many of them had to be computed."""

    entries: list[Entry]
    computed: int


def collect(
    source: ShardSource,
    descriptions: list[dict[str, Any]],
    compute: Compute,
    *,
    batch_size: int,
    workers: int = 0,
    device: torch.device | None = None,
    label: str = "features",
) -> Collected | None:
    """Return the entry of every description; those that the cache lacks are computed in one pass over `source`.

    `compute(batch, numbers)` gives the arrays of the descriptions of these numbers. Every process must call it; where
    one fails, all raise. Raises `DataError` where no sample can be used, or a feature is NaN or infinite, and what
    reading, computing and writing raise.
    """
    device = device or torch.device("cpu")
    names = [cache.digest(description) for description in descriptions]
    first = [names.index(name) for name in names]  # equal descriptions, as of an untrained encoder, share an entry
    found: list[Any] = collectives.run_on_main(lambda: _find(descriptions), share=False) or []
    missing = collectives.run_on_main(lambda: sorted({first[n] for n, entry in enumerate(found) if entry is None}))
    if missing:
        writers = collectives.run_on_main(
            lambda: {number: cache.Writer(descriptions[number], len(source)) for number in missing}, share=False
        )
        writers = writers or {}  # of the main process alone

        def write(part: Part) -> None:
            for writer, arrays in zip(writers.values(), part.arrays, strict=True):
                for name, values in arrays.items():
                    writer.write(name, part.rows, values)

        def check(batch: Batch, of_each: list[Arrays]) -> None:
            for number, arrays in zip(missing, of_each, strict=True):
                _refuse_not_finite(source, descriptions[number], batch, arrays)

        batches = _own_batches(source, batch_size, workers, device, label)
        parts = _compute_parts(batches, lambda batch: compute(batch, missing), check, device)
        try:
            if not _write_rounds(parts, write):
                first_shard = source.shard(0)
                raise DataError(f"none of {counted(len(source), 'sample')} in {first_shard} and its like could be used")
            found = collectives.run_on_main(lambda found=found: _close(found, writers), share=False) or []
        except BaseException:
            for writer in writers.values():
                writer.discard()
            raise
    return Collected([found[n] for n in first], len(missing)) if collectives.rank() == 0 else None


def _find(descriptions: list[dict[str, Any]]) -> list[Entry | None]:
    cache.limit()  # a wrong limit is refused before hours of computing
    return [cache.find(description) for description in descriptions]


def _close(found: list[Entry | None], writers: dict[int, cache.Writer]) -> list[Entry | None]:
    """Return the entries that were found, with those of the writers in their places."""
    written = {number: writer.close() for number, writer in writers.items()}
    if excess := cache.evict():
        Console(stderr=True).print(
            f"features in use exceed the cache's {cache.limit():,g} GiB by {excess:,.1f} GiB; they stay until the next "
            "command computes others, unless MVSSL_CACHE_LIMIT (GiB) is raised",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    return [written.get(number, entry) for number, entry in enumerate(found)]


def _own_batches(
    source: ShardSource, batch_size: int, workers: int, device: torch.device, label: str
) -> Iterator[Batch]:
    """The batches of this process: full ones of a contiguous block."""
    count, rank, world = -(-len(source) // batch_size), collectives.rank(), collectives.world()
    start, stop = count * rank // world, count * (rank + 1) // world
    batches = sequential_loader(
        source, batch_size=batch_size, workers=workers, start=start * batch_size, stop=stop * batch_size,
        pin_memory=device.type == "cuda", may_be_none=world > 1,
    )  # fmt: skip
    return progress_bar(batches, label, stop - start, rank == 0)


def _compute_parts(
    batches: Iterator[Batch],
    compute: Callable[[Batch], list[Arrays]],
    check: Callable[[Batch, list[Arrays]], None],
    device: torch.device,
) -> Iterator[Part]:
    """Yield a part for each batch; on a GPU the host waits for a batch while the device computes the next one."""
    waiting: tuple[Batch, list[Arrays], torch.cuda.Event | None] | None = None

    def finish(batch: Batch, arrays: list[Arrays], event: torch.cuda.Event | None) -> Part:
        if event is not None:
            event.synchronize()
        check(batch, arrays)
        return Part(batch.index.numpy(), arrays)

    for batch in batches:
        with torch.inference_mode(), enough_memory(LESS):
            arrays = [{name: _to_cpu(x) for name, x in of_one.items()} for of_one in compute(batch)]
        event = torch.cuda.Event() if device.type == "cuda" else None
        if event is not None:
            event.record()
        if waiting is not None:
            yield finish(*waiting)
        waiting = batch, arrays, event
    if waiting is not None:
        yield finish(*waiting)


def _to_cpu(x: Tensor) -> Tensor:
    """On the CPU, float32 where it was a lower precision. From a GPU the copy is asynchronous."""
    x = x.float() if x.is_floating_point() else x
    if not x.is_cuda:
        return x.contiguous()
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)


def _refuse_not_finite(source: ShardSource, description: dict[str, Any], batch: Batch, arrays: Arrays) -> None:
    """Raise `DataError` where an array of floats is not finite: no probe could measure it.

    Samples that lack a view have a blank in its place, which is not checked.
    """
    present = [has for name, has in batch.present.items() if name != "label"]
    complete = torch.stack(present).all(0) if present else torch.ones(len(batch.index), dtype=torch.bool)
    for view, x in arrays.items():
        if x.is_floating_point() and x.ndim > 1 and (bad := complete & ~x.isfinite().flatten(1).all(1)).any():
            advice = "no encoder has seen it yet" if description.get("of") == PIXELS else DIVERGED
            raise not_finite(source, int(batch.index[bad][0]), view, advice)


def not_finite(source: ShardSource, row: int, view: str, advice: str) -> DataError:
    """Return the error to raise where features of a sample are NaN or infinite."""
    return DataError(
        f"view {view}, sample {source.key(row)} of {source.shard(row)}: features are NaN or infinite; {advice}"
    )


def _write_rounds(parts: Iterator[Part], write: Callable[[Part], None]) -> int:
    """Call `write` on the main process with the parts of all processes, one of each per round, in the order of ranks.

    Return the number of samples. Where reading, computing or writing fails on one process, all raise.
    """
    samples, written = 0, 1
    while written:
        part, failure = None, None
        try:
            part = next(parts, None)
        except MvsslError as error:
            failure = error
        everyone = collectives.gather_on_main((part, failure and (str(failure), failure.code)))
        try:
            written = collectives.run_on_main(lambda everyone=everyone: _write_round(everyone, write))
        except ElsewhereError:
            if failure is not None:
                raise failure from None
            raise
        samples += written
    return samples


def _write_round(everyone: list[tuple[Part | None, Any]], write: Callable[[Part], None]) -> int:
    """Write the parts of one round and return the number of their samples; raise the first failure instead."""
    for _, failure in everyone:
        if failure is not None:
            raise ElsewhereError(*failure)
    for part, _ in everyone:
        if part is not None:
            write(part)
    return sum(len(part.rows) for part, _ in everyone if part is not None)
