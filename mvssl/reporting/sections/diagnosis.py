"""The diagnosis of the run's own checks: each finding with its measured value and advice."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from mvssl.reporting.content import Absent, Section, describe_value
from mvssl.reporting.facts import Facts

KINDS = {"healthy": "well", "too early to say": "open", "too few held-out samples to say": "open"}  # others: ill
SIGNS = {"well": "✓", "open": "…", "ill": "!"}


class Finding(NamedTuple):
    """A sentence, the measured value and its threshold, and advice; all but the sentence may be empty."""

    sentence: str
    numbers: str
    advice: str


@dataclass(frozen=True)
class Diagnosis(Section):
    name, title = "verdict", "Diagnosis"
    kind: str  # class of the style sheet
    headline: str
    step: str
    summary: str
    findings: list[Finding]


def show_diagnosis(facts: Facts) -> Diagnosis | Absent:
    """Return the content of verdict.json."""
    content = facts.diagnosis
    if not content.get("verdict"):
        why = "there is no verdict.json to be read: checks write it, every train.check_every steps (else save_every)"
        return Absent(Diagnosis.title, why)
    verdict = str(content["verdict"])
    kind = KINDS.get(verdict, "ill")
    step = f", at step {content['step']:,}" if isinstance(content.get("step"), int) else ""
    findings = [_read_finding(one) for one in content.get("findings") or [] if isinstance(one, dict)]
    headline = f"{SIGNS[kind]} {verdict.capitalize()}"
    return Diagnosis(kind, headline, step, str(content.get("summary") or ""), findings)


def _read_finding(finding: dict[str, Any]) -> Finding:
    sentence = str(finding.get("sentence") or finding.get("what") or "")
    view = finding.get("view")
    named = f" ({view})" if view and str(view) not in sentence else ""
    numbers = [
        f"{name} {describe_value(finding[key])}"
        for key, name in (("value", "measured"), ("threshold", "threshold"))
        if finding.get(key) is not None
    ]
    return Finding(sentence + named, ", ".join(numbers), str(finding.get("advice") or ""))
