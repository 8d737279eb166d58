"""The diagnosis of the run's own checks: each finding with its measured value and advice."""

from typing import Any

from mvssl.errors import DataError
from mvssl.reporting.content import Block, Item, Items, Text, describe_value
from mvssl.reporting.inputs import Inputs

KINDS = {"healthy": "well", "too early to say": "open", "too few held-out samples to say": "open"}  # others: ill
SIGNS = {"well": "✓", "open": "…", "ill": "!"}


def show_diagnosis(inputs: Inputs) -> list[Block]:
    """Return the content of verdict.json."""
    content = inputs.facts.diagnosis
    if not content.get("verdict"):
        raise DataError("there is no verdict.json to be read: checks write it, every train.check_every steps "
                        "(else save_every)")  # fmt: skip
    diagnosis, step = content["verdict"], content.get("step")
    kind = KINDS.get(diagnosis, "ill")
    at_step = "" if step is None else f", at step {step:,}"
    blocks: list[Block] = [Text(at_step, f"banner {kind}", strong=f"{SIGNS[kind]} {diagnosis.capitalize()}")]
    blocks += [Text(content["summary"])] if content.get("summary") else []
    findings = [_read_finding(finding) for finding in content.get("findings") or []]
    return [*blocks, Items(findings, "findings")] if findings else blocks


def _read_finding(finding: dict[str, Any]) -> Item:
    """Return the sentence of a finding, with its measured value, threshold and advice as far as it has them."""
    sentence, view = finding.get("sentence") or finding.get("what") or "", finding.get("view")
    notes = [
        ", ".join(
            f"{name} {describe_value(finding[key])}"
            for key, name in (("value", "measured"), ("threshold", "threshold"))
            if finding.get(key) is not None
        ),
        f"Try: {finding['advice']}" if finding.get("advice") else "",
    ]
    return Item(sentence + (f" ({view})" if view and view not in sentence else ""), list(filter(None, notes)))
