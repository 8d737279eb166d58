"""Diagnoses a run: numbers of a check in, findings out, each with its threshold and advice.

in   `Evidence`: bounds beside ceilings, effective rank and spread of each view's features, and the step
out  `Diagnosis`: the name of the worst finding, and all findings

Source of the thresholds. Features: of nine healthy runs (DIM, AMDIM, CMC, MIB on images and depth) the lowest spread
was 0.29 and the lowest rank 35. An untrained network had 0.03 and 4. A network that weight decay had killed had
0.0001 and 1. Bounds: a critic below 0.05 nats distinguishes two samples hardly better than chance.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mvssl.checkpoints.state import JsonForm, Number, Text
from mvssl.objectives.metric_names import MetricName, find_terms

SPREAD = 0.02  # mean of `spread` over dimensions: all outputs point the same way
RANK = 10.0  # effective rank; or a quarter of the largest possible rank, if that is less
IDLE = 0.9  # share of dimensions that do not vary; networks with ReLU are healthy with 0.6
NOTHING = 0.05  # nats
BLIND = 0.02  # of 2 ln 2, the most that a Jensen-Shannon estimate can reach
FULL = 0.95  # of a bound's ceiling
FEW = 50  # held-out samples; with fewer, a run without findings is not called healthy
TOP = 2 * math.log(2)

# from worst to best: the first one found names the diagnosis
ORDER = (
    "diverged", "collapsed", "critic uninformative", "memorised", "learned nothing", "partly collapsed",
    "partly uninformative", "bound not to be believed", "bound at its ceiling",
)  # fmt: skip


class Finding(NamedTuple):
    """One problem: a number, the threshold that it crossed, and what to try."""

    what: str
    view: str  # a view, a pair of views, or empty
    value: float | None
    threshold: float
    sentence: str
    advice: str


class VerdictForm(JsonForm):
    """The content of verdict.json, also of other versions."""

    step: int | None = None
    verdict: Text | None = None
    summary: Text | None = None
    findings: list[dict[str, Text | Number | None]] | None = None


class Diagnosis(NamedTuple):
    """`name` is that of the worst finding, or healthy, too early or too few held-out samples to say."""

    step: int
    name: str
    summary: str
    findings: list[Finding]

    def record(self) -> dict[str, Any]:
        """Return the content of verdict.json."""
        findings = [finding._asdict() for finding in self.findings]
        return {"step": self.step, "verdict": self.name, "summary": self.summary, "findings": findings}


class FeatureStatistics(NamedTuple):
    """How the features of one view fill their space."""

    rank: float  # effective rank
    spread: float  # mean over dimensions; 1 if directions are drawn evenly, 0 if all are the same
    idle: float  # share of dimensions that do not vary
    width: int
    samples: int


@dataclass(frozen=True)
class Evidence:
    """The numbers of a check; `held` and `trained` are metrics by key, such as `bound/PAIR`, `ceiling/PAIR`, `loss`."""

    step: int
    early: int  # steps before which bounds are not diagnosed
    held: Mapping[str, float]  # of held-out samples; of training samples if there are no held-out ones
    trained: Mapping[str, float | None] = field(default_factory=dict)  # of the last interval
    first: Mapping[str, float | None] = field(default_factory=dict)  # of held-out samples before the first step
    features: Mapping[str, FeatureStatistics] = field(default_factory=dict)  # by view
    batch: int = 0  # samples that the bounds compare with each other; with one, bounds mean nothing

    @property
    def samples(self) -> int:
        """How many samples the features are from, 0 without features."""
        return max((shape.samples for shape in self.features.values()), default=0)

    @property
    def beta(self) -> float:
        """The weight of MIB's divergence, the largest of several objectives; 0 without it."""
        return max((value for name, value in self.held.items() if is_beta(name)), default=0.0)


def is_beta(name: str) -> bool:
    """Return whether a metric is MIB's schedule, which is a setting and not measured."""
    return name.rpartition("/")[2] == "beta"


class BoundReading(NamedTuple):
    """A bound on the information of a pair of views, in nats, and the most that it could read."""

    value: float
    ceiling: float | None
    divergence: float | None = None  # the Jensen-Shannon estimate of the same scores: 0 for a blind critic

    @property
    def blind(self) -> bool:
        """Whether the critic cannot distinguish samples.

        A Jensen-Shannon estimate of the same scores, if there is one, decides alone: one large score of a negative
        makes the bound in nats very low, even if the critic is nearly always right.
        """
        return self.value < NOTHING if self.divergence is None else self.divergence < BLIND * TOP

    @property
    def score(self) -> float:
        """The number by which the critic is scored: the Jensen-Shannon estimate if there is one, else the bound."""
        return self.value if self.divergence is None else self.divergence

    def __str__(self) -> str:
        if self.divergence is not None:
            return f"JSD {self.divergence:.2f} of {TOP:.2f}"
        return f"{self.value:.2f}" + (f" of {self.ceiling:.2f}" if self.ceiling is not None else "") + " nats"


def find_bounds(metrics: Mapping[str, float | None]) -> dict[str, BoundReading]:
    """Return the bounds among metrics by subject: `a-b`, or `cmc/a-b` for the term cmc of several objectives."""
    terms = find_terms(metrics)
    values = {MetricName.parse(key, terms): value for key, value in metrics.items()}
    found = {}
    for name, value in values.items():
        if name.quantity == "bound" and value is not None:
            ceiling, jsd, gan = (values.get(name._replace(quantity=other)) for other in ("ceiling", "jsd", "gan"))
            found[name.subject] = BoundReading(value, ceiling, jsd if gan is None else gan + TOP)
    return found


def diagnose(evidence: Evidence) -> Diagnosis:
    """Return the diagnosis of the numbers of a check."""
    numbers = dict(evidence.held)
    numbers |= {f"features of {view}": math.nan for view, shape in evidence.features.items() if math.isnan(shape.rank)}
    ready, bounds = evidence.step >= evidence.early, find_bounds(evidence.held)
    infinite = next((name for name, value in numbers.items() if not math.isfinite(value)), None)
    if infinite is not None:
        findings = [
            _diverged(f"{infinite} is not a finite number on held-out samples", "go back to a checkpoint from before")
        ]
    elif "loss" in evidence.trained and evidence.trained["loss"] is None:
        sentence = "no step of the last interval was taken: loss or gradient were not finite in any"
        findings = [_diverged(sentence, "look at the data with `mvssl verify`")]
    else:
        findings = [*_collapse(evidence)]
        if ready and evidence.batch != 1:
            findings += [*_bounds(evidence), *_progress(evidence)]
    for partly, wholly, names in (
        ("partly collapsed", "collapsed", evidence.features),
        ("partly uninformative", "critic uninformative", bounds),
    ):
        count = sum(finding.what == wholly for finding in findings)
        if 0 < count < len(names):  # the others are well, so the finding is about a part of the run
            findings = [f._replace(what=partly) if f.what == wholly else f for f in findings]
    findings.sort(key=lambda finding: ORDER.index(finding.what))
    few = 0 < evidence.samples < FEW or evidence.batch == 1
    well = "too early to say" if not ready else "too few held-out samples to say" if few else "healthy"
    parts = [f"{name} {bound}" for name, bound in bounds.items()]
    parts += [f"{view} fills {s.rank:.1f} of {s.width} directions" for view, s in evidence.features.items()]
    return Diagnosis(evidence.step, findings[0].what if findings else well, "; ".join(parts), findings)


def _diverged(sentence: str, also: str) -> Finding:
    advice = f"take a smaller optim.lr, optim.clip: 1, or train.precision: fp32, and {also}"
    return Finding("diverged", "", None, 0.0, sentence, advice)


def _collapse(evidence: Evidence) -> Iterator[Finding]:
    for view, (rank, spread, idle, width, _) in evidence.features.items():
        floor = min(RANK, min(width, evidence.samples) / 4)
        if spread < SPREAD:
            yield Finding(
                "collapsed", view, spread, SPREAD,
                f"the features of {view} are nearly the same for every sample: spread {spread:.4f}, where evenly "
                f"drawn directions have 1 and a collapsed encoder less than {SPREAD}",
                "lower optim.lr or optim.weight_decay, give the warm-up more steps, and look at the views: `mvssl "
                "views` shows whether they differ from sample to sample",
            )  # fmt: skip
        elif evidence.step < evidence.early:
            continue
        elif rank < floor:
            yield Finding(
                "partly collapsed", view, rank, floor,
                f"the features of {view} fill {rank:.1f} of {width} directions (effective rank), fewer than {floor:g}",
                "lower optim.lr, give the objective a wider or deeper head (cmc: head: mlp), more negatives (a larger "
                "data.batch_size), or views that differ in more ways",
            )  # fmt: skip
        elif idle > IDLE:
            yield Finding(
                "partly collapsed", view, idle, IDLE,
                f"{idle:.0%} of the {width} features of {view} never change, more than {IDLE:.0%}",
                "lower optim.lr or optim.weight_decay: units that died do not come back",
            )  # fmt: skip


def _bounds(evidence: Evidence) -> Iterator[Finding]:
    trained = find_bounds(evidence.trained)
    for pair, bound in find_bounds(evidence.held).items():
        before = trained[pair].score if pair in trained else -math.inf
        if bound.blind and before >= max(10 * NOTHING, 5 * bound.score):
            unit = "nats" if bound.divergence is None else f"of at most {TOP:.2f} (Jensen-Shannon)"
            yield Finding(
                "memorised", pair, bound.score, NOTHING,
                f"{pair}: {bound.score:.2f} {unit} on held-out samples, {before:.2f} on those it was trained on",
                "give it more samples, stronger augmentation, a smaller encoder or fewer epochs; `--checkpoint best` "
                "takes the best that were saved",
            )  # fmt: skip
        elif bound.blind:
            yield _uninformative(pair, bound, evidence.beta)
        elif bound.ceiling is not None and bound.value >= FULL * bound.ceiling:
            yield Finding(
                "bound at its ceiling", pair, bound.value, FULL * bound.ceiling,
                f"{pair}: {bound} on held-out samples; a batch of this size cannot measure more",
                "enlarge data.batch_size (the ceiling is the log of the number of candidates), or make the task "
                "harder: stronger augmentation, less overlap between the views",
            )  # fmt: skip
        elif bound.ceiling is None and evidence.samples and bound.value > math.log(evidence.samples):
            yield Finding(
                "bound not to be believed", pair, bound.value, math.log(evidence.samples),
                f"{pair}: {bound.value:.2f} nats, more than the log of the number of samples, "
                f"{evidence.samples:,} ({math.log(evidence.samples):.2f}), which no lower bound can prove "
                "(McAllester, Stratos, 2020)",
                "take the number as large, not as exact; estimator: infonce states its own ceiling",
            )  # fmt: skip


def _uninformative(pair: str, bound: BoundReading, beta: float) -> Finding:
    advice = "raise optim.lr or train longer, make the views overlap more, and look at them with `mvssl views`"
    if beta:
        advice = (
            f"the divergence is weighted with beta {beta:.3g}: begin with beta: 0 until the bound "
            "rises, and then raise beta slowly and less far; a wider critic (units) or negatives: all help too"
        )
    threshold = NOTHING
    sentence = (
        f"{pair}: {bound} on held-out samples, less than {NOTHING}: the critic cannot predict one view from the other"
    )
    if bound.divergence is not None:
        threshold = BLIND * TOP
        sentence = (
            f"{pair}: the critic cannot distinguish positives from negatives: its Jensen-Shannon value "
            f"is {bound.divergence:.3f} of at most {TOP:.3f}. Its loss stays near 0 (or 2 ln 2 = 1.386 with estimator "
            "gan and in the public code of the Multi-View Information Bottleneck)"
        )
    return Finding("critic uninformative", pair, bound.score, threshold, sentence, advice)


def _progress(evidence: Evidence) -> Iterator[Finding]:
    first, now = find_bounds(evidence.first), find_bounds(evidence.held)
    gains = [now[pair].score - first[pair].score for pair in now if pair in first]
    if gains and max(gains) < NOTHING and not all(bound.blind for bound in now.values()):
        yield Finding(
            "learned nothing", "", max(gains), NOTHING,
            f"no bound has risen by {NOTHING} since before the first step; the largest change is "
            f"{max(gains):+.3f}",
            "raise optim.lr, and see that the encoder is not frozen; if the bound was high from the start, the views "
            "are too alike",
        )  # fmt: skip
