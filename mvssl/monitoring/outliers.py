"""Samples whose views do not seem to show one thing, by what `mvssl.monitoring.matching` remembers of training.

in   the mean share of strangers that fit a sample better than its partner: [pairs, samples]
out  `Suspect`s, the most suspicious first; or the reason why nothing can be told

A sample's number is that of its worst view: the mean over the pairs with that view. The logit of the numbers of
ordinary samples is close to normal (seen on colour and depth, and on body sensors), so median and quartiles give the
majority's law, and Benjamini and Hochberg's rule (1995) tells who does not belong to it, after Efron's empirical null
(2004, doi:10.1198/016214504000000089). A sample whose partner beats nine of ten strangers is not listed in any case.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mvssl.monitoring.matching import CHANCE
from mvssl.text import counted

RATE = 0.1  # share of wrongly listed that the rule aims at
VISITS = 8  # in the median, before anything is told
TOLD_APART = 0.25  # half of the samples have fewer strangers ahead, or the run does not know yet what belongs together
LEAST = 50  # samples
TINY = 0.002


class Suspect(NamedTuple):
    """A sample, its worst view (of two views both), its number, and how many visits in a row it stood near chance."""

    index: int
    views: str
    score: float
    visits: int


class Suspects(NamedTuple):
    """Who is listed, from which score on, among how many, and why nobody is where nothing can be told."""

    listed: list[Suspect]
    threshold: float | None
    samples: int
    why: str = ""


def suspects(means: Tensor, chance: Tensor, visits: Tensor, pairs: list[str]) -> Suspects:
    """`means` and `chance` [pairs, samples] and `visits` [samples] of a `Matching`, on the CPU."""
    names, by_view = views_of(means, pairs)
    scores = by_view.nan_to_num(-math.inf).amax(0).masked_fill(by_view.isnan().all(0), math.nan)
    known = scores.isfinite().nonzero()[:, 0]
    count = len(known)
    if count < LEAST:
        return Suspects([], None, count, f"{counted(count, 'sample was', 'samples were')} scored, {LEAST} are needed")
    if visits[known].median() < VISITS:
        met = int(visits[known].median())
        return Suspects([], None, count, f"samples were met {met} times in the median, {VISITS} are needed")
    middle = scores[known].median().item()
    if middle > TOLD_APART:
        said = f"for half of the samples {middle:.0%} of strangers or more fit better than their partner"
        return Suspects([], None, count, f"the run cannot tell yet what belongs together: {said}")
    chosen = known[outliers(scores[known]) & (scores[known] >= CHANCE)]
    order = chosen[scores[chosen].argsort(descending=True)]
    listed = []
    for i in order.tolist():
        worst = names[int(by_view[:, i].nan_to_num(-math.inf).argmax())]
        told = worst if len(names) > 2 else "-".join(names)
        listed.append(Suspect(i, told, scores[i].item(), int(chance[_with(worst, pairs), i].max())))
    return Suspects(listed, min((s.score for s in listed), default=None), count)


def views_of(means: Tensor, pairs: list[str]) -> tuple[list[str], Tensor]:
    """The views that pairs are of, and for each the mean over the pairs that it is in, [views, samples]."""
    names = list(dict.fromkeys(view for pair in pairs for view in pair.split("-")))
    return names, torch.stack([means[_with(view, pairs)].nanmean(0) for view in names])


def outliers(scores: Tensor, rate: float = RATE) -> Tensor:
    """bool [n]: whose logit is too large for the law of the majority, at a false discovery rate."""
    logit = (scores + TINY).log() - (1 + TINY - scores).log()
    low, middle, high = logit.quantile(torch.tensor([0.25, 0.5, 0.75], dtype=logit.dtype))
    spread = ((high - low) / 1.349).clamp(min=1e-9)  # of a normal law, whose quartiles are 1.349 deviations apart
    tail = torch.special.erfc((logit - middle) / spread / math.sqrt(2)) / 2
    ranked = tail.sort().values
    passing = (ranked <= rate * torch.arange(1, len(tail) + 1) / len(tail)).nonzero()
    return tail <= (ranked[passing[-1, 0]] if len(passing) else -1)


def _with(view: str, pairs: list[str]) -> list[int]:
    return [number for number, pair in enumerate(pairs) if view in pair.split("-")]
