"""Frozen features of every sample once, on any number of processes, kept in the cache.

in   a source, and descriptions of what is computed of each sample: layers of encoders, clean views, labels
out  `cache.CachedFeatures` for each on the main process, from the cache if possible; None on the others

A process works on a contiguous block of full batches, so batches are equal to those of a single process. It sends its
features to the main process, which writes them.
"""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from mvssl.data.batch import Batch
from mvssl.data.loading import sequential_loader
from mvssl.data.shard_source import ShardSource
from mvssl.distributed import collectives
from mvssl.distributed.devices import enough_memory
from mvssl.errors import DataError, MvsslError, OtherProcessError
from mvssl.evaluation.features import cache
from mvssl.evaluation.features.cache import CachedFeatures
from mvssl.evaluation.results.records import PIXELS
from mvssl.process.progress import progress_bar
from mvssl.text import counted

DIVERGED = "the encoder has diverged; for a run, use an earlier checkpoint with --checkpoint STEP"
LESS = (
    "take one view or a smaller layer at a time (--view, --layer), evaluate.precision=bf16, or a smaller batch "
    "(batch_size of mvssl.evaluation.evaluate and mvssl.embedding.embed)"
)

Compute = Callable[[Batch, list[int]], list[dict[str, Tensor]]]


class BatchFeatures(NamedTuple):
    """The result of one batch: sample numbers int64 [k], and for each entry its arrays [k, ...] by name."""

    rows: np.ndarray
    arrays: list[dict[str, np.ndarray]]


class CollectedFeatures(NamedTuple):
    """Entries in the order of the descriptions, and how many of them were computed."""

    entries: list[CachedFeatures]
    computed: int


def collect_features(
    source: ShardSource,
    descriptions: list[dict[str, Any]],
    compute: Compute,
    *,
    batch_size: int,
    workers: int = 0,
    device: torch.device | None = None,
    label: str = "features",
) -> CollectedFeatures | None:
    """Return the entry of every description. Entries that the cache lacks are computed in one pass over `source`.

    `compute(batch, numbers)` returns the arrays of the descriptions with these numbers. Every process must call this
    function; if one fails, all raise. Raise `DataError` if no sample can be used, or a feature is NaN or infinite.
    """
    names = [cache.name_entry(description) for description in descriptions]  # equal ones share an entry
    entries = collectives.run_on_main(lambda: _read_entries(names, descriptions), share=False) or {}
    missing = collectives.run_on_main(lambda: sorted({names.index(name) for name in names if name not in entries}))
    if missing:
        device, new = device or torch.device("cpu"), [descriptions[number] for number in missing]
        batches = _own_batches(source, batch_size, workers, device, label)
        parts = _compute_parts(batches, lambda batch: compute(batch, missing), new, source, device)
        with contextlib.ExitStack() as stack:
            writers = collectives.run_on_main(
                lambda: [stack.enter_context(cache.Writer(each, len(source))) for each in new], share=False
            )
            if not _write_parts(parts, writers or []):
                samples = counted(len(source), "sample")
                raise DataError(f"none of {samples} in {source.shard(0)} and its like could be used")
            computed = collectives.run_on_main(lambda: _close(writers or []), share=False)
        entries |= zip((names[number] for number in missing), computed or (), strict=False)
    return CollectedFeatures([entries[name] for name in names], len(missing)) if collectives.rank() == 0 else None


def _read_entries(names: list[str], descriptions: list[dict[str, Any]]) -> dict[str, CachedFeatures]:
    cache.read_limit()  # a wrong limit is refused before hours of computing
    read = {name: cache.read_entry(each) for name, each in dict(zip(names, descriptions, strict=True)).items()}
    return {name: entry for name, entry in read.items() if entry is not None}


def _close(writers: list[cache.Writer]) -> list[CachedFeatures]:
    entries = [writer.close() for writer in writers]
    if beyond := cache.evict_entries():
        Console(stderr=True).print(
            f"features in use exceed the cache's {cache.read_limit():,g} GiB by {beyond:,.1f} GiB; they stay until the "
            "next command computes others, unless MVSSL_CACHE_LIMIT (GiB) is raised",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    return entries


def _own_batches(
    source: ShardSource, batch_size: int, workers: int, device: torch.device, label: str
) -> Iterator[Batch]:
    """Return the batches of this process: a contiguous block of full batches."""
    count, rank, world = -(-len(source) // batch_size), collectives.rank(), collectives.world_size()
    start, stop = count * rank // world, count * (rank + 1) // world
    batches = sequential_loader(
        source, batch_size=batch_size, workers=workers, start=start * batch_size, stop=stop * batch_size,
        pin_memory=device.type == "cuda", may_be_empty=world > 1,
    )  # fmt: skip
    return progress_bar(batches, label, stop - start, rank == 0)


def _compute_parts(
    batches: Iterator[Batch],
    compute: Callable[[Batch], list[dict[str, Tensor]]],
    descriptions: list[dict[str, Any]],
    source: ShardSource,
    device: torch.device,
) -> Iterator[BatchFeatures]:
    """Yield a part for each batch. On a GPU, the host waits for a batch while the device computes the next."""

    def finish(batch: Batch, arrays: list[dict[str, Tensor]], event: torch.Event | None) -> BatchFeatures:
        if event is not None:
            event.synchronize()
        _refuse_not_finite(source, descriptions, batch, arrays)
        return BatchFeatures(batch.index.numpy(), [{name: x.numpy() for name, x in own.items()} for own in arrays])

    started = deque()
    for batch in batches:
        with torch.inference_mode(), enough_memory(LESS):
            arrays = [{name: _copy_to_cpu(x) for name, x in own.items()} for own in compute(batch)]
        started.append((batch, arrays, torch.cuda.current_stream().record_event() if device.type == "cuda" else None))
        if len(started) > 1:
            yield finish(*started.popleft())
    yield from (finish(*batch) for batch in started)


def _copy_to_cpu(x: Tensor) -> Tensor:
    """Return a tensor on the CPU; floats become float32. The copy from a GPU is asynchronous."""
    x = x.float() if x.is_floating_point() else x
    if not x.is_cuda:
        return x.contiguous()
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)


def _refuse_not_finite(
    source: ShardSource, descriptions: list[dict[str, Any]], batch: Batch, arrays: list[dict[str, Tensor]]
) -> None:
    """Raise `DataError` if an array of floats is not finite, because no probe could measure it.

    Samples that lack a view hold a blank in its place, which is not checked.
    """
    complete = torch.ones(len(batch.index), dtype=torch.bool)
    for name, present in batch.present.items():
        complete = complete & present if name != "label" else complete
    for description, own in zip(descriptions, arrays, strict=True):
        for view, x in own.items():
            if not x.is_floating_point() or x.ndim < 2:
                continue
            bad = complete & ~x.isfinite().flatten(1).all(1)
            if bad.any():
                advice = "no encoder has seen it yet" if description.get("of") == PIXELS else DIVERGED
                raise not_finite(source, int(batch.index[bad][0]), view, advice)


def not_finite(source: ShardSource, row: int, view: str, advice: str) -> DataError:
    """Return the error for a sample whose features are NaN or infinite."""
    return DataError(
        f"view {view}, sample {source.key(row)} of {source.shard(row)}: features are NaN or infinite; {advice}"
    )


def _write_parts(parts: Iterator[BatchFeatures], writers: list[cache.Writer]) -> int:
    """Write the parts of all processes on the main process, and return the number of samples.

    If one process fails, all raise.
    """
    failure: MvsslError | None = None
    samples = 0
    while True:
        part = None
        try:
            part = next(parts, None) if failure is None else None
        except MvsslError as error:
            failure = error
        report = None if part is None else len(part.rows), failure and (str(failure), failure.code)
        counts, failures = zip(*collectives.gather_objects(report), strict=True)
        if failure is not None:
            raise failure
        for elsewhere in filter(None, failures):
            raise OtherProcessError(*elsewhere)
        if not any(count is not None for count in counts):
            return samples
        samples += sum(filter(None, counts))
        try:
            for received in filter(None, collectives.gather_on_main(part)):
                for writer, arrays in zip(writers, received.arrays, strict=True):
                    for name, values in arrays.items():
                        writer.write(name, received.rows, values)
        except MvsslError as error:  # the next round reports it to the others
            failure = error
