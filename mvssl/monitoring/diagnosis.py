"""What ails a run, in words: numbers of a check in, findings out, each with its threshold and what to try.

in   `Evidence`: bounds beside ceilings, effective rank and spread of each view's features, and where the run stands
out  `Verdict`: one word of the worst that was found, and the findings

Where thresholds come from. Features: of nine healthy runs (DIM, AMDIM, CMC, MIB on images and depth) the least had
spread 0.29 and rank 35, a network before training 0.03 and 4, one that decay had killed 0.0001 and 1. Bounds: what is
below 0.05 nats tells two samples apart hardly better than a coin.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

SPREAD = 0.02  # mean of `spread` over dimensions: all outputs point the same way
RANK = 10.0  # effective rank; a quarter of what could be, where that is less
IDLE = 0.9  # share of dimensions that do not vary; networks with ReLU do well with 0.6
NOTHING = 0.05  # nats
BLIND = 0.02  # of 2 ln 2, the most that a Jensen-Shannon estimate can reach
FULL = 0.95  # of a bound's ceiling
FEW = 50  # held-out samples, below which nothing that was found is no sign of health
TOP = 2 * math.log(2)

# from worst to best: the first that was found is the verdict
ORDER = (
    "diverged", "collapsed", "critic uninformative", "memorised", "learned nothing", "partly collapsed",
    "partly uninformative", "bound not to be believed", "bound at its ceiling",
)  # fmt: skip


class Finding(NamedTuple):
    """One thing that is wrong, or bears watching: a number, the threshold that it crossed, and what to try."""

    what: str
    view: str  # a view, a pair of views, or empty
    value: float | None
    threshold: float
    sentence: str
    advice: str


class Verdict(NamedTuple):
    """`verdict` is healthy, too early or too few held-out samples to say, or what the worst finding is called."""

    step: int
    verdict: str
    summary: str
    findings: list[Finding]

    def record(self) -> dict[str, Any]:
        """As verdict.json holds it."""
        return {**self._asdict(), "findings": [finding._asdict() for finding in self.findings]}


@dataclass(frozen=True)
class Evidence:
    """What a check saw. `held` and `trained` are metrics by name: `bound/PAIR`, `ceiling/PAIR`, `jsd/PAIR`, `loss`."""

    step: int
    early: int  # steps before which bounds say nothing yet
    held: Mapping[str, float]  # of held-out samples; of training samples where nothing is held out
    trained: Mapping[str, float | None] = field(default_factory=dict)  # of the last interval
    first: Mapping[str, float | None] = field(default_factory=dict)  # of held-out samples before the first step
    rank: Mapping[str, float] = field(default_factory=dict)
    spread: Mapping[str, float] = field(default_factory=dict)
    idle: Mapping[str, float] = field(default_factory=dict)  # share of dimensions that do not vary
    width: Mapping[str, int] = field(default_factory=dict)
    samples: int = 0
    batch: int = 0  # samples that the bounds compare with each other; of one alone they say nothing
    beta: float | None = None  # weight of MIB's divergence


class Bound(NamedTuple):
    """A bound on the information of a pair of views, in nats, and the most that it could read."""

    value: float
    ceiling: float | None
    divergence: float | None = None  # the Jensen-Shannon estimate of the same scores: 0 for a blind critic

    @property
    def blind(self) -> bool:
        """Whether the critic tells nothing apart.

        Where a Jensen-Shannon estimate of the same scores is known it alone decides: one large score of a negative
        sinks the bound in nats of a critic that is right nearly everywhere.
        """
        return self.value < NOTHING if self.divergence is None else self.divergence < BLIND * TOP

    @property
    def told(self) -> float:
        """What the critic is judged by: the Jensen-Shannon estimate where there is one, else the bound."""
        return self.value if self.divergence is None else self.divergence

    def __str__(self) -> str:
        if self.divergence is not None:
            return f"JSD {self.divergence:.2f} of {TOP:.2f}"
        return f"{self.value:.2f}" + (f" of {self.ceiling:.2f}" if self.ceiling is not None else "") + " nats"


def bounds(metrics: Mapping[str, float | None]) -> dict[str, Bound]:
    """The bounds among metrics, by what they are of: `bound/a-b` beside `ceiling/a-b`, with a term's label before."""
    found = {}
    for name, value in metrics.items():
        parts = name.split("/")
        if "bound" in parts and value is not None:
            place = parts.index("bound")
            beside = {
                other: metrics.get("/".join([*parts[:place], other, *parts[place + 1 :]]))
                for other in ("ceiling", "jsd", "gan")
            }
            gan = beside["gan"]
            divergence = beside["jsd"] if gan is None else gan + TOP
            found["/".join(parts[:place] + parts[place + 1 :])] = Bound(value, beside["ceiling"], divergence)
    return found


def judge(seen: Evidence) -> Verdict:
    """The verdict on what a check saw."""
    if not all(math.isfinite(value) for value in seen.held.values()):
        findings = [_diverged(seen)]
    elif "loss" in seen.trained and seen.trained["loss"] is None:
        findings = [_standing_still()]
    else:
        findings = [*_collapse(seen)]
        if seen.step >= seen.early and seen.batch != 1:
            findings += [*_bounds(seen), *_progress(seen)]
    for partly, wholly, names in (
        ("partly collapsed", "collapsed", seen.spread),
        ("partly uninformative", "critic uninformative", bounds(seen.held)),
    ):
        count = sum(finding.what == wholly for finding in findings)
        if 0 < count < len(names):  # the others are well: the run as a whole is not what one of its parts is
            findings = [f._replace(what=partly) if f.what == wholly else f for f in findings]
    findings.sort(key=lambda finding: ORDER.index(finding.what))
    return Verdict(seen.step, findings[0].what if findings else _well(seen), _summary(seen), findings)


def _well(seen: Evidence) -> str:
    if seen.step < seen.early:
        return "too early to say"
    few = 0 < seen.samples < FEW or seen.batch == 1
    return "too few held-out samples to say" if few else "healthy"


def _summary(seen: Evidence) -> str:
    told = [f"{name} {bound}" for name, bound in bounds(seen.held).items()]
    told += [f"{view} fills {rank:.1f} of {seen.width[view]} directions" for view, rank in seen.rank.items()]
    return "; ".join(told)


def _diverged(seen: Evidence) -> Finding:
    name = next(name for name, value in seen.held.items() if not math.isfinite(value))
    return Finding(
        "diverged", "", None, 0.0, f"{name} is not a finite number on held-out samples",
        "take a smaller optim.lr, optim.clip: 1, or train.precision: fp32, and go back to a checkpoint from before",
    )  # fmt: skip


def _standing_still() -> Finding:
    return Finding(
        "diverged", "", None, 0.0, "no step of the last interval was taken: loss or gradient were not finite in any",
        "take a smaller optim.lr, optim.clip: 1, or train.precision: fp32, and look at the data with `mvssl verify`",
    )  # fmt: skip


def _collapse(seen: Evidence) -> Iterator[Finding]:
    for view, spread in seen.spread.items():
        width = seen.width[view]
        rank, floor = seen.rank[view], min(RANK, min(width, seen.samples) / 4)
        if spread < SPREAD:
            yield Finding(
                "collapsed", view, spread, SPREAD,
                f"the features of {view} are nearly the same for every sample: spread {spread:.4f}, where evenly "
                f"drawn directions have 1 and a collapsed encoder less than {SPREAD}",
                "lower optim.lr or optim.weight_decay, give the warm-up more steps, and look at the views: `mvssl "
                "views` shows whether they differ from sample to sample",
            )  # fmt: skip
        elif rank < floor and seen.step >= seen.early:
            yield Finding(
                "partly collapsed", view, rank, floor,
                f"the features of {view} fill {rank:.1f} of {width} directions (effective rank), fewer than {floor:g}",
                "lower optim.lr, give the objective a wider or deeper head (cmc: head: mlp), more negatives (a larger "
                "data.batch_size), or views that differ in more ways",
            )  # fmt: skip
        elif seen.idle.get(view, 0) > IDLE and seen.step >= seen.early:
            yield Finding(
                "partly collapsed", view, seen.idle[view], IDLE,
                f"{seen.idle[view]:.0%} of the {width} features of {view} never change, more than {IDLE:.0%}",
                "lower optim.lr or optim.weight_decay: units that died do not come back",
            )  # fmt: skip


def _bounds(seen: Evidence) -> Iterator[Finding]:
    trained = bounds(seen.trained)
    for pair, bound in bounds(seen.held).items():
        before = trained[pair].told if pair in trained else -math.inf
        if bound.blind and before >= max(10 * NOTHING, 5 * bound.told):
            unit = "nats" if bound.divergence is None else f"of at most {TOP:.2f} (Jensen-Shannon)"
            yield Finding(
                "memorised", pair, bound.told, NOTHING,
                f"{pair}: {bound.told:.2f} {unit} on held-out samples, {before:.2f} on those it was trained on",
                "give it more samples, stronger augmentation, a smaller encoder or fewer epochs; `--checkpoint best` "
                "takes the best that were saved",
            )  # fmt: skip
        elif bound.blind:
            yield _uninformative(pair, bound, seen)
        elif bound.ceiling is not None and bound.value >= FULL * bound.ceiling:
            yield Finding(
                "bound at its ceiling", pair, bound.value, FULL * bound.ceiling,
                f"{pair}: {bound} on held-out samples; a batch of this size cannot measure more",
                "enlarge data.batch_size (the ceiling is the log of the number of candidates), or make the task "
                "harder: stronger augmentation, less overlap between the views",
            )  # fmt: skip
        elif bound.ceiling is None and seen.samples and bound.value > math.log(seen.samples):
            yield Finding(
                "bound not to be believed", pair, bound.value, math.log(seen.samples),
                f"{pair}: {bound.value:.2f} nats, more than the log of the {seen.samples:,} samples it was read from "
                f"({math.log(seen.samples):.2f}), which no lower bound can prove (McAllester, Stratos, 2020)",
                "take the number as large, not as exact; estimator: infonce states its own ceiling",
            )  # fmt: skip


def _uninformative(pair: str, bound: Bound, seen: Evidence) -> Finding:
    advice = "raise optim.lr or train longer, make the views overlap more, and look at them with `mvssl views`"
    if seen.beta:
        advice = (
            f"the divergence is weighted with beta {seen.beta:.3g}: begin with beta: 0, see the bound rise, and only "
            "then raise beta, slowly and less far; a wider critic (units) or negatives: all help too"
        )
    if bound.divergence is not None:
        value = bound.divergence
        return Finding(
            "critic uninformative", pair, value, BLIND * TOP,
            f"{pair}: the critic cannot tell samples drawn together from samples drawn apart: its Jensen-Shannon value "
            f"is {value:.3f} of at most {TOP:.3f}. Its loss stays near 0 (or 2 ln 2 = 1.386 with estimator gan and in "
            "the public code of the Multi-View Information Bottleneck)",
            advice,
        )  # fmt: skip
    return Finding(
        "critic uninformative", pair, bound.value, NOTHING,
        f"{pair}: {bound} on held-out samples, less than {NOTHING}: what one view shows says nothing of the other",
        advice,
    )  # fmt: skip


def _progress(seen: Evidence) -> Iterator[Finding]:
    first, now = bounds(seen.first), bounds(seen.held)
    gains = [now[pair].told - first[pair].told for pair in now if pair in first]
    if gains and max(gains) < NOTHING and not all(bound.blind for bound in now.values()):
        yield Finding(
            "learned nothing", "", max(gains), NOTHING,
            f"no bound has risen by {NOTHING} since before the first step; the largest change is "
            f"{max(gains):+.3f}",
            "raise optim.lr, and see that the encoder is not frozen; if the bound was high from the start, the views "
            "are too alike",
        )  # fmt: skip
