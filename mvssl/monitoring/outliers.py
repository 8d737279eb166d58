"""Finds samples whose views do not seem to belong together, from what `mvssl.monitoring.mispairing` tracked.

in   the mean share of negatives that outscore a sample's positive: [pairs, samples]
out  `Outliers`, the largest score first, or the reason why the test cannot run; RUN/mispaired.jsonl, a line each

The score of a sample is that of its worst view: the mean over the pairs with that view. The logit of the scores of
ordinary samples is close to normal (observed on colour and depth, and on body sensors). Median and quartiles estimate
this normal, the empirical null of Efron (2004, doi:10.1198/016214504000000089). The rule of Benjamini and Hochberg
(1995) then finds the samples that do not follow it. It never lists a sample whose positive beats nine of ten negatives.
"""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mvssl.data import Source
from mvssl.errors import OutputError, StorageError
from mvssl.files import write_file
from mvssl.monitoring.mispairing import CHANCE, MispairingTracker
from mvssl.text import counted, warn

RATE = 0.1  # target share of wrongly listed samples
VISITS = 8  # median number of visits that the test needs
LEARNED = 0.25  # a larger median score means that the run has not learned yet which views belong together
LEAST = 50  # samples
TINY = 0.002


class Outlier(NamedTuple):
    """A sample, its worst view (both views if there are two), its score, and its visits in a row near chance."""

    index: int
    views: str
    score: float
    visits: int


class Outliers(NamedTuple):
    """The outliers, the lowest score among them, how many samples have a score, and why the test could not run."""

    listed: list[Outlier]
    threshold: float | None
    samples: int
    why: str = ""

    def __str__(self) -> str:
        if self.why:
            return f"mispaired samples: not known, {self.why}"
        none = "" if self.listed else "; no sample stands out"
        return f"mispaired samples: {len(self.listed)} of {self.samples:,} listed in mispaired.jsonl{none}"


def tracked_outliers(tracker: MispairingTracker) -> Outliers:
    """Return the outliers among the samples of a tracker."""
    return find_outliers(tracker.means(), tracker.chance.cpu(), tracker.visits.cpu(), tracker.pairs)


def find_outliers(means: Tensor, chance: Tensor, visits: Tensor, pairs: list[str]) -> Outliers:
    """Test `means` and `chance` [pairs, samples] and `visits` [samples] of a `MispairingTracker`, on the CPU."""
    names, by_view = views_of(means, pairs)
    scores = by_view.nan_to_num(-math.inf).amax(0).masked_fill(by_view.isnan().all(0), math.nan)
    known = scores.isfinite().nonzero()[:, 0]
    count = len(known)
    if count < LEAST:
        return Outliers([], None, count, f"{counted(count, 'sample was', 'samples were')} scored, {LEAST} are needed")
    if visits[known].median() < VISITS:
        visited = int(visits[known].median())
        return Outliers([], None, count, f"the median sample was visited {visited} times, {VISITS} are needed")
    middle = scores[known].median().item()
    if middle > LEARNED:
        reason = f"for half of the samples {middle:.0%} of the negatives or more outscore the positive"
        return Outliers([], None, count, f"the run has not learned yet which views belong together: {reason}")
    chosen = known[stands_out(scores[known]) & (scores[known] >= CHANCE)]
    order = chosen[scores[chosen].argsort(descending=True)]
    listed = []
    for i in order.tolist():
        worst = names[int(by_view[:, i].nan_to_num(-math.inf).argmax())]
        views = worst if len(names) > 2 else "-".join(names)
        listed.append(Outlier(i, views, scores[i].item(), int(chance[_with(worst, pairs), i].max())))
    return Outliers(listed, min((s.score for s in listed), default=None), count)


def views_of(means: Tensor, pairs: list[str]) -> tuple[list[str], Tensor]:
    """Return the names of the views in `pairs`, and for each the mean over its pairs, [views, samples]."""
    names = list(dict.fromkeys(view for pair in pairs for view in pair.split("-")))
    return names, torch.stack([means[_with(view, pairs)].nanmean(0) for view in names])


def stands_out(scores: Tensor, rate: float = RATE) -> Tensor:
    """Return whose logit is too large for the normal of the majority, bool [n], at a false discovery rate."""
    logit = (scores + TINY).log() - (1 + TINY - scores).log()
    low, middle, high = logit.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=logit.dtype))
    spread = ((high - low) / 1.349).clamp(min=1e-9)  # the quartiles of a normal are 1.349 deviations apart
    tail = torch.special.erfc((logit - middle) / spread / math.sqrt(2)) / 2
    ranked = tail.sort().values
    passing = (ranked <= rate * torch.arange(1, len(tail) + 1) / len(tail)).nonzero()
    return tail <= (ranked[passing[-1, 0]] if len(passing) else -1)


def _with(view: str, pairs: list[str]) -> list[int]:
    return [number for number, pair in enumerate(pairs) if view in pair.split("-")]


def write_outliers(folder: Path, found: Outliers, source: Source, step: int) -> None:
    """Write mispaired.jsonl, empty if no sample stands out. A full disk gives a warning."""
    lines = [
        {
            "shard": source.shard(s.index), "key": source.key(s.index), "views": s.views, "score": round(s.score, 4),
            "threshold": found.threshold, "visits": s.visits, "step": step,
        }
        for s in found.listed
    ]  # fmt: skip
    with write_errors_as_warnings():
        write_file(folder / "mispaired.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


@contextlib.contextmanager
def write_errors_as_warnings() -> Iterator[None]:
    """Print a warning if the result of a check cannot be written: training has more important files to save."""
    try:
        yield
    except (StorageError, OutputError) as error:
        warn(f"{error}; training goes on")
