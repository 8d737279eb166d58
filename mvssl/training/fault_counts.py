"""Counts faults that do not end the run, and decides when the run must stop.

in   the vote of each step and the samples that this process replaced
out  counts of vetoed steps and of replaced samples over all processes, RUN/bad.jsonl, and a `StopReason`

The ledger reads the vote of a step when the next step is under way, so that no step waits for the host.
"""

from pathlib import Path
from typing import NamedTuple

from mvssl.checkpoints.state import State
from mvssl.data import BadSample
from mvssl.distributed import collectives
from mvssl.recipe import Data
from mvssl.runs.line_files import LineFile
from mvssl.training.guard import AsyncScalars, Vote, Votes

PATIENCE = 20  # vetoed steps in a row after which a run ends
GRACE = 10_000  # samples that count as read from the start, so that the first bad one does not end a run


class StopReason(NamedTuple):
    """Why all processes stop after the same step: a request by a signal, or a lasting fault."""

    message: str
    is_fault: bool = True


REQUESTED = StopReason("a process was asked to stop", is_fault=False)


class FaultCounter:
    """Counts over the run and its earlier parts, whose counts are in `state`; the same on every process."""

    def __init__(self, folder: Path, data: Data, state: State):
        self.data, self._lines = data, LineFile(folder / "bad.jsonl")
        self.bad, self.skipped, self.in_a_row = state.bad, state.skipped, state.in_a_row
        self.stop_reason: StopReason | None = None
        self.save_requested = False  # some process was asked to save; the saver sets it back
        self._unread: tuple[int, AsyncScalars, list[BadSample]] | None = None

    def add_step(self, step: int, vote: Vote, bad: list[BadSample]) -> None:
        """Keep the vote and the bad samples of step number `step` (from 1); read the vote of the step before."""
        self.read_last_vote()
        self._unread = (step, AsyncScalars(vote.totals), bad)

    def read_last_vote(self) -> None:
        """Read the newest vote on all processes: count, write bad.jsonl, set `stop_reason` and `save_requested`."""
        if self._unread is None:
            return
        step, totals, bad = self._unread
        self._unread = None
        votes = Votes(*map(int, totals.read()))
        self.save_requested |= votes.save > 0
        self.skipped += votes.against > 0
        self.in_a_row = self.in_a_row + 1 if votes.against else 0
        if votes.stop and self.stop_reason is None:
            self.stop_reason = REQUESTED
        if self.in_a_row >= PATIENCE:
            self.stop_reason = StopReason(
                f"loss or gradient was not finite for {self.in_a_row} steps in a row, up to step {step}; the weights "
                "are those from before; try a smaller optim.lr, optim.clip=1, or train.precision=fp32, and check the "
                "data with `mvssl verify`"
            )
        if votes.bad:
            self._record(step, votes.bad, bad)

    def _record(self, step: int, count: int, own: list[BadSample]) -> None:
        """Count and write the bad samples of all processes; set a fault if they are too many."""
        everyone = [record for records in collectives.gather_objects(own) for record in records]
        self.bad += count
        if collectives.rank() == 0:
            self._lines.append([{"step": step, **record._asdict()} for record in everyone])
        read, last = step * self.data.batch_size, everyone[0]
        if self.bad > self.data.max_bad * max(read, GRACE):
            self.stop_reason = StopReason(
                f"{self.bad} of {read} samples could not be decoded, more than data.max_bad={self.data.max_bad} "
                f"allows; the last: {last.shard} key {last.key} {last.column}: {last.reason}. "
                f"{self._lines.file} lists them; `mvssl verify` checks shards; a larger data.max_bad lets the run go on"
            )

    def counts(self) -> dict[str, int]:
        """Return what a checkpoint keeps."""
        return {"bad": self.bad, "skipped": self.skipped, "in_a_row": self.in_a_row}
