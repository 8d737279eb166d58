"""Frozen features of every sample once, on any number of processes, kept in the cache.

in   a source, and descriptions of what is computed of each sample: layers of encoders, clean views, labels
out  a `cache.Entry` for each on the main process, from the cache if possible; None on the others

A process works on a contiguous block of full batches, so batches are equal to those of a single process. It sends its
features to the main process, which writes them.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
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

DIVERGED = "the encoder has diverged; for a run, use an earlier checkpoint with --checkpoint STEP"

LESS = (
    "take one view or a smaller layer at a time (--view, --layer), evaluate.precision=bf16, or a smaller batch "
    "(batch_size of mvssl.evaluation.evaluate and mvssl.embedding.embed)"
)

Compute = Callable[[Batch, list[int]], list[dict[str, Tensor]]]
Check = Callable[[Batch, list[dict[str, Tensor]]], None]


class Part(NamedTuple):
    """The result of one batch: sample numbers int64 [k], and for each entry its arrays [k, ...] by name, on the CPU."""

    rows: np.ndarray
    arrays: list[dict[str, Tensor]]


class Collected(NamedTuple):
    """Entries in the order of the descriptions, and how many of them were computed."""

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
    """Return the entry of every description. Entries that the cache lacks are computed in one pass over `source`.

    `compute(batch, numbers)` returns the arrays of the descriptions with these numbers. Every process must call this
    function; if one fails, all raise. Raise `DataError` if no sample can be used, or a feature is NaN or infinite.
    """
    names = [cache.digest(description) for description in descriptions]
    first = [names.index(name) for name in names]  # equal descriptions, as of an untrained encoder, share an entry
    found: list[Any] = collectives.run_on_main(lambda: _find(descriptions), share=False) or []
    missing = collectives.run_on_main(lambda: sorted({first[n] for n, entry in enumerate(found) if entry is None}))
    if not missing:
        return Collected(found, 0) if collectives.rank() == 0 else None
    writers = collectives.run_on_main(
        lambda: {number: cache.Writer(descriptions[number], len(source)) for number in missing}, share=False
    )
    writers = writers or {}  # none but on the main process
    device = device or torch.device("cpu")

    def take(part: Part) -> None:
        for number, arrays in zip(missing, part.arrays, strict=True):
            for name, values in arrays.items():
                writers[number].write(name, part.rows, values)

    def check(batch: Batch, arrays: list[dict[str, Tensor]]) -> None:
        for number, found in zip(missing, arrays, strict=True):
            _refuse_not_finite(source, descriptions[number], batch, found)

    batches = _own_batches(source, batch_size, workers, device, label)
    parts = _compute_parts(batches, compute, missing, check, device)
    try:
        if not _take_rounds(parts, take, batch_size):
            raise DataError(f"none of {counted(len(source), 'sample')} in {source.shard(0)} and its like could be used")
        closed = collectives.run_on_main(lambda: _close(found, writers))
    except BaseException:
        for writer in writers.values() if collectives.rank() == 0 else ():
            writer.discard()
        raise
    return Collected([found[n] for n in first], closed) if collectives.rank() == 0 else None


def _find(descriptions: list[dict[str, Any]]) -> list[Entry | None]:
    cache.limit()  # a wrong limit is refused before hours of computing
    return [cache.find(description) for description in descriptions]


def _close(found: list[Any], writers: dict[int, cache.Writer]) -> int:
    for number, writer in writers.items():
        found[number] = writer.close()
    if beyond := cache.evict():
        Console(stderr=True).print(
            f"features in use exceed the cache's {cache.limit():,g} GiB by {beyond:,.1f} GiB; they stay until the next "
            "command computes others, unless MVSSL_CACHE_LIMIT (GiB) is raised",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    return len(writers)


def _own_batches(
    source: ShardSource, batch_size: int, workers: int, device: torch.device, label: str
) -> Iterator[Batch]:
    """Return the batches of this process: a contiguous block of full batches."""
    count, rank, world = -(-len(source) // batch_size), collectives.rank(), collectives.world()
    start, stop = count * rank // world, count * (rank + 1) // world
    batches = sequential_loader(
        source, batch_size=batch_size, workers=workers, start=start * batch_size, stop=stop * batch_size,
        pin_memory=device.type == "cuda", may_be_empty=collectives.world() > 1,
    )  # fmt: skip
    return progress_bar(batches, label, stop - start, rank == 0)


def _compute_parts(
    batches: Iterator[Batch], compute: Compute, numbers: list[int], check: Check, device: torch.device
) -> Iterator[Part]:
    """Yield a part for each batch. On a GPU, the host waits for a batch while the device computes the next."""
    held: tuple[Batch, list[dict[str, Tensor]], Any] | None = None
    for batch in batches:
        with torch.inference_mode(), enough_memory(LESS):
            arrays = [{name: _to_cpu(x) for name, x in arrays.items()} for arrays in compute(batch, numbers)]
        event = torch.cuda.Event() if device.type == "cuda" else None
        if event is not None:
            event.record()
        if held is not None:
            yield _finish(*held, check)
        held = batch, arrays, event
    if held is not None:
        yield _finish(*held, check)


def _to_cpu(x: Tensor) -> Tensor:
    """Return a tensor on the CPU, in float32 at least. The copy from a GPU is asynchronous."""
    x = x.float() if x.is_floating_point() else x
    if not x.is_cuda:
        return x.contiguous()
    return torch.empty(x.shape, dtype=x.dtype, pin_memory=True).copy_(x, non_blocking=True)


def _finish(batch: Batch, arrays: list[dict[str, Tensor]], event: Any, check: Check) -> Part:
    if event is not None:
        event.synchronize()
    check(batch, arrays)
    return Part(batch.index.numpy(), arrays)


def _refuse_not_finite(
    source: ShardSource, description: dict[str, Any], batch: Batch, arrays: dict[str, Tensor]
) -> None:
    """Raise `DataError` if an array of floats is not finite, because no probe could measure it.

    Samples that lack a view hold a blank in its place, which is not checked.
    """
    needed = [there for name, there in batch.present.items() if name != "label"]
    whole = torch.stack(needed).all(0) if needed else torch.ones(len(batch.index), dtype=torch.bool)
    for view, x in arrays.items():
        bad = whole & ~x.isfinite().flatten(1).all(1) if x.is_floating_point() and x.ndim > 1 else ~whole[:0]
        if bad.any():
            advice = "no encoder has seen it yet" if description.get("of") == PIXELS else DIVERGED
            raise not_finite(source, int(batch.index[bad][0]), view, advice)


def not_finite(source: ShardSource, row: int, view: str, advice: str) -> DataError:
    """Return the error for a sample whose features are NaN or infinite."""
    return DataError(
        f"view {view}, sample {source.key(row)} of {source.shard(row)}: features are NaN or infinite; {advice}"
    )


def _take_rounds(parts: Iterator[Part], take: Callable[[Part], None], batch_size: int) -> int:
    """Pass the parts of all processes to `take` on the main process, and return the number of samples.

    If one process fails, all raise.
    """
    failure: MvsslError | None = None
    group, samples = collectives.cpu_group(), 0
    while True:
        part = None
        try:
            part = next(parts, None) if failure is None else None
        except MvsslError as error:
            failure = error
        everyone = _exchange(part, failure)
        if failure is not None:
            raise failure
        for message in everyone:
            if message is not None and message["failure"] is not None:
                raise ElsewhereError(*message["failure"])
        present = [message for message in everyone if message is not None]
        if not present:
            return samples
        samples += sum(len(message["rows"]) for message in present)
        parts_here = (
            [part] if collectives.world() == 1 else _gather(part, everyone, present[0]["like"], batch_size, group)
        )
        try:
            for one in parts_here:
                take(one)  # pyright: ignore[reportArgumentType]
        except MvsslError as error:  # the next round reports it to the others
            failure = error


def _exchange(part: Part | None, failure: MvsslError | None) -> list[dict[str, Any] | None]:
    """Return the message of every process: its rows and array shapes, or its failure, or None at its end."""
    message = None
    if failure is not None:
        message = {"failure": (str(failure), failure.code)}
    elif part is not None:
        like = [{name: (x.shape[1:], x.dtype) for name, x in arrays.items()} for arrays in part.arrays]
        message = {"failure": None, "rows": part.rows, "like": like}
    return collectives.gather_objects(message)


def _gather(part: Part | None, everyone: list[Any], like: list[dict], size: int, group: Any) -> list[Part]:
    """Return the parts of this round in rank order on the main process, and [] on the others."""
    main = collectives.rank() == 0
    rows = [np.empty(0, np.int64) if message is None else message["rows"] for message in everyone]
    parts = [Part(one, [{} for _ in like]) for one in rows]
    for number, arrays in enumerate(like):
        for name, (shape, kind) in arrays.items():
            own = torch.zeros(size, *shape, dtype=kind)
            if part is not None:
                own[: len(part.rows)] = part.arrays[number][name]
            blocks = [torch.empty_like(own) for _ in everyone] if main else None
            dist.gather(own, blocks, dst=0, group=group)
            for one, block in zip(parts, blocks or (), strict=False):
                one.arrays[number][name] = block[: len(one.rows)]
    return [one for one in parts if len(one.rows)] if main else []
