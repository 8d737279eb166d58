"""What the run's own checks say in words: the verdict, with the number behind each finding and what to try."""

from typing import Any

from mvssl.reporting.gather import Facts
from mvssl.reporting.html import Html, el
from mvssl.reporting.sections import Absent, Section

OPEN = ("open", "…")  # class and sign
KINDS = {"healthy": ("well", "✓"), "too early to say": OPEN, "too few held-out samples to say": OPEN}  # others are ills


def verdict(facts: Facts) -> Section | Absent:
    """The collapse verdict with the number behind each finding and what to try."""
    said = facts.verdict
    if not said.get("verdict"):
        why = "there is no verdict.json to be read: checks write it, every train.check_every steps (else save_every)"
        return Absent("Verdict", why)
    findings = [f for f in said.get("findings") or [] if isinstance(f, dict)]
    word = str(said["verdict"])
    kind, sign = KINDS.get(word, ("ill", "!"))
    step = f", at step {said['step']:,}" if isinstance(said.get("step"), int) else ""
    banner = el("p", el("b", f"{sign} {word.capitalize()}"), step, class_=f"banner {kind}")
    told = el("p", said["summary"], class_="note") if said.get("summary") else None
    listed = el("ul", [_finding(f) for f in findings], class_="findings") if findings else None
    return Section("verdict", "Verdict", el("div", banner, told, listed))


def _finding(finding: dict[str, Any]) -> Html:
    sentence = str(finding.get("sentence") or finding.get("what") or "")
    where = f" ({finding['view']})" if finding.get("view") and str(finding["view"]) not in str(sentence) else ""
    numbers = [
        f"{name} {as_text(finding[key])}"
        for key, name in (("value", "measured"), ("threshold", "threshold"))
        if finding.get(key) is not None
    ]
    advice = el("p", f"Try: {finding['advice']}", class_="note") if finding.get("advice") else None
    return el(
        "li",
        f"{sentence}{where}",
        el("p", ", ".join(numbers), class_="note") if numbers else None,
        advice,
    )


def as_text(value: Any) -> str:
    """A number or a list of names as it is shown."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)
