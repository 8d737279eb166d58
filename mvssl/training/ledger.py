"""What went wrong and was survived: vetoed steps and substituted samples, counted over all processes.

The ledger reads the vote of a step only when the next one is under way, so that no step waits for the host.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from mvssl.data import BadSample
from mvssl.distributed import collectives
from mvssl.runs.line_files import LineFile
from mvssl.training.guard import Late, Votes

PATIENCE = 20  # steps in a row that are not finite before a run gives up
GRACE = 10_000  # samples that are counted as seen from the start, so that the first bad one does not end a run


class Ledger:
    """Counts over the whole run, resumed ones included; the same on every process."""

    def __init__(
        self, file: Path, batch_size: int, max_bad: float, *, bad: int = 0, skipped: int = 0, in_a_row: int = 0
    ):
        self.file, self.batch_size, self.max_bad = file, batch_size, max_bad
        self._lines = LineFile(file)
        self.bad, self.skipped, self.in_a_row = bad, skipped, in_a_row
        self.stop = False  # some process was asked to stop
        self.save = False  # some process was asked to save; whoever saves sets it back
        self.fault: str | None = None
        self._open: tuple[int, Late, list[BadSample]] | None = None

    def note(self, step: int, verdict: Tensor, bad: list[BadSample]) -> None:
        """Take the vote and this process's bad samples of step number `step` (from 1); settle the one before."""
        self.settle()
        self._open = (step, Late(verdict), bad)

    def settle(self) -> None:
        """Read the open vote: count, write bad.jsonl, and set `stop`, `save` or `fault` on all processes alike."""
        if self._open is None:
            return
        step, verdict, records = self._open
        self._open = None
        votes = Votes(*verdict.read())
        self.stop |= votes.stop > 0
        self.save |= votes.save > 0
        self.skipped += votes.against > 0
        self.in_a_row = self.in_a_row + 1 if votes.against > 0 else 0
        if self.in_a_row >= PATIENCE:
            self.fault = (
                f"loss or gradient was not finite for {self.in_a_row} steps in a row, up to step {step}; the weights "
                "are those from before; try a smaller optim.lr, optim.clip=1, or train.precision=fp32, and look "
                "at the data"
            )
        if votes.bad > 0:
            self._record(step, int(votes.bad), records)

    def _record(self, step: int, count: int, records: list[BadSample]) -> None:
        found = [record for each in collectives.gather_objects(records) for record in each]
        self.bad += count
        if collectives.rank() == 0:
            self._lines.append([{"step": step, **record._asdict()} for record in found])
        if self.bad > self.max_bad * max(step * self.batch_size, GRACE):
            first = found[0]
            self.fault = (
                f"{self.bad} of {step * self.batch_size} samples could not be decoded, more than data.max_bad="
                f"{self.max_bad} allows; the last: {first.shard} key {first.key} {first.column}: {first.reason}. "
                f"All stand in {self.file}; `mvssl verify` checks shards; a larger data.max_bad goes on"
            )

    def counts(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"bad": self.bad, "skipped": self.skipped, "in_a_row": self.in_a_row}
