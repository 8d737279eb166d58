"""The result of an embedding, and the lines about it that the command prints."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mvssl.embedding.formats import FORMATS
from mvssl.embedding.table import LABEL
from mvssl.runs.load import which_weights
from mvssl.text import counted


class Embedded(NamedTuple):
    """An embedding that was written. `about` describes subject, data and samples left out; the file has it too."""

    file: Path
    samples: int
    widths: dict[str, int]  # numbers per view
    dtype: str
    label: tuple[int, ...] | None  # shape of one label; None without labels
    computed: int  # number of computed samples; 0 if all features came from the cache
    about: dict[str, Any]


def summary_lines(made: Embedded) -> Iterator[str]:
    """Yield lines: the file, its samples and arrays, the subject, missing samples with reasons, and how to load it."""
    subject, data, left_out = (made.about[part] for part in ("subject", "data", "left_out"))
    used, view = FORMATS[made.file.suffix], next(iter(made.widths))
    arrays = ", ".join(f"{name} {[made.samples, width]}" for name, width in made.widths.items())
    label = "" if made.label is None else f"; label {[made.samples, *made.label]}"
    which = which_weights(subject.get("step"), subject.get("which"))
    of = f"{subject['name']} at {which}" if which else subject["name"]
    how = "" if made.computed else ", read from the cache of features"
    yield f"wrote {made.file}: {counted(made.samples, 'sample')} of {', '.join(data['patterns'])}"
    yield f"  {arrays} {made.dtype}{label}; layer {made.about['layer']} of {of}{how}"
    if left_out["without_view"]:
        lacking = counted(left_out["without_view"], "sample that lacks", "samples that lack")
        hint = "; data.missing=mask keeps samples that have another view" * (data["missing"] == "drop")
        yield f"  left out: {lacking} a view{hint}"
    if left_out["undecodable"]:
        bad, first = counted(left_out["undecodable"], "bad sample"), left_out["first_undecodable"]
        yield f"  left out: {bad}, first {first}; `mvssl verify` says why"
    for name, count in made.about["absent"].items():
        missing = used.missing_label if name == LABEL else used.missing_features
        yield f"  without {name}: {counted(count, 'sample')}; {missing}"
    yield f"  load it: {used.load.format(file=made.file if made.file.suffix else made.file.absolute(), view=view)}"
