"""Compare our way of doing something with other ways, in turns, in one process.

in   for each row of a table the ways as functions without arguments: ours first, then the others
out  a `Row`: the time of each way, and `ratio`, the time of the fastest other way divided by ours, with its spread

Load from other programs changes within seconds. So blocks of all ways take turns, and the ratio is the median over
rounds. Above 1, ours is faster.
"""

import contextlib
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from mvssl.bench.timing import CPU, finish_result, synchronize
from mvssl.distributed import collectives

Way = Callable[[], object]
Clock = Literal["cpu", "wall"]
CLOCKS = {"cpu": "CPU time of one thread", "wall": "wall time"}
ROUNDS = 7
BLOCK = 0.1  # seconds that a way works before the next one takes its turn, at least


@dataclass(frozen=True)
class Row:
    """One comparison. Times are medians over rounds, for one call of a way.

    `ratio` is the time of `beside`, the fastest other way, divided by ours; `ratio_spread` is the lowest and the
    highest over rounds. All three are None if there is no other way. `samples` is the number of samples of one call,
    0 if calls have none. `memory` has peak bytes by way; it is empty where memory was not measured.
    """

    what: str
    seconds: dict[str, float]
    beside: str | None = None
    ratio: float | None = None
    ratio_spread: tuple[float, float] | None = None
    samples: int = 0
    rounds: int = ROUNDS
    memory: dict[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch work on one thread inside the block, so that CPU time and work are the same on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def compare(
    what: str, ways: Mapping[str, Way], *, samples: int = 0, rounds: int = ROUNDS, block: float = BLOCK,
    clock: Clock = "cpu", device: torch.device = CPU, memory: Mapping[str, int] | None = None,
) -> Row:  # fmt: skip
    """Time the ways in turns. The first is ours. Every way is called twice before the first block, which is not timed.

    In each round each way works for at least `block` seconds. Rounds alternate in order, so that no way always
    follows the same one. On a CUDA device `clock` must be "wall".
    """
    spent = time_in_turns(ways, rounds=rounds, block=block, clock=clock, device=device)
    return build_row(what, spent, samples=samples, memory=memory)


def time_in_turns(
    ways: Mapping[str, Way], *, rounds: int = ROUNDS, block: float = BLOCK, clock: Clock = "cpu",
    device: torch.device = CPU,
) -> dict[str, list[float]]:  # fmt: skip
    """Return the seconds of a call of each way in each round, as `compare` takes them."""
    calls = {name: _calls_in(way, block, clock, device) for name, way in ways.items()}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            spent[name].append(time_block(ways[name], calls[name], clock, device))
    return spent


def build_row(
    what: str, spent: Mapping[str, Sequence[float]], *, samples: int = 0, memory: Mapping[str, int] | None = None
) -> Row:
    """Return the row for the seconds of each way in each round. The first way is ours."""
    ours, *others = spent
    seconds = {name: statistics.median(times) for name, times in spent.items()}
    row = Row(what, seconds, samples=samples, rounds=len(spent[ours]), memory=dict(memory or {}))
    if not others:
        return row
    beside = min(others, key=seconds.__getitem__)
    ratios = [other / own for own, other in zip(spent[ours], spent[beside], strict=True)]
    return replace(row, beside=beside, ratio=statistics.median(ratios), ratio_spread=(min(ratios), max(ratios)))


def time_block(way: Way, calls: int, clock: Clock, device: torch.device) -> float:
    """Return the seconds of one call, the mean over `calls`."""
    read = time.process_time if clock == "cpu" else time.perf_counter
    synchronize(device)
    begin = read()
    for _ in range(calls):
        way()
    synchronize(device)
    return (read() - begin) / calls


def _calls_in(way: Way, block: float, clock: Clock, device: torch.device) -> int:
    way()
    return max(1, math.ceil(block / max(1e-9, time_block(way, 1, clock, device))))


def finish_comparison(
    bench: str, rows: Iterable[Row], *, bottleneck: str, clock: Clock = "cpu", device: torch.device = CPU,
    json_file: str | Path | None = None, **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """Return the result of a benchmark; print it as a table and write it to `json_file`, if given.

    `ratio` is the lowest of the rows. `bottleneck` is a sentence that names what takes most of our time. `more` are
    further keys of the JSON. Raise `OutputError` if the file cannot be written.
    """
    rows = list(rows)
    result = finish_result(describe_rows(bench, rows, bottleneck, clock) | more, device, json_file)
    if collectives.rank() == 0:
        print_comparison(result)
    return result


def describe_rows(bench: str, rows: list[Row], bottleneck: str, clock: Clock) -> dict[str, Any]:
    """Return the result of a benchmark without the machine."""
    ratios = [row.ratio for row in rows if row.ratio is not None]
    return {
        "bench": bench,
        "clock": CLOCKS[clock],
        "ratio": min(ratios, default=None),
        "bottleneck": bottleneck,
        "rows": [asdict(row) for row in rows],
    }


def print_comparison(result: Mapping[str, Any]) -> None:
    """Print the rows of a result as a table, the bottleneck below it, and the machine."""
    head, rows = tabulate(result)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print(f"bottleneck: {result['bottleneck']}")
    console.print(describe_machine(result))


def tabulate(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return the names of the columns and the cells of each row, for a result or for its JSON."""
    rows = result["rows"]
    names = list(dict.fromkeys(itertools.chain(*(row["seconds"] for row in rows))))
    rates, compared = all(row["samples"] for row in rows), any(row["ratio"] is not None for row in rows)
    measured = [name for name in names if any(name in row["memory"] for row in rows)]
    head = [f"{'samples/s' if rates else 'ms'}, {result['clock']}", *names]
    head += ["ratio"] * compared + [f"MB, {name}" for name in measured]
    return head, [
        [
            row["what"],
            *(_format_time(row, name, rates) for name in names),
            *[_format_ratio(row)] * compared,
            *(f"{row['memory'][name] / 1e6:,.0f}" if name in row["memory"] else "" for name in measured),
        ]
        for row in rows
    ]


def describe_machine(result: Mapping[str, Any]) -> str:
    """Return the device, the processor, and the numbers of cores and threads."""
    machine = result["hardware"]
    return f"{machine['device']}, {machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads"


def _format_time(row: Mapping[str, Any], name: str, rates: bool) -> str:
    if name not in row["seconds"]:
        return ""
    number = row["samples"] / row["seconds"][name] if rates else 1e3 * row["seconds"][name]
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _format_ratio(row: Mapping[str, Any]) -> str:
    if row["ratio"] is None:
        return ""
    low, high = row["ratio_spread"]
    return f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"


def name_largest(shares: Mapping[str, float]) -> str:
    """Return the largest share as a phrase: `the hue takes 41%`."""
    name = max(shares, key=shares.__getitem__)
    return f"{name} takes {shares[name] / sum(shares.values()):.0%}"
