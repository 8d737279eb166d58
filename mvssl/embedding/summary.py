"""The result of an embedding, and the lines about it that the command prints."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mvssl.runs.load import which_weights
from mvssl.text import counted


class Embedded(NamedTuple):
    """An embedding that was written. `about` is also in the file: the subject, the data, and samples left out."""

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
    arrays = [f"{view} {[made.samples, width]}" for view, width in made.widths.items()]
    label = "" if made.label is None else f"; label {[made.samples, *made.label]}"
    which = which_weights(subject.get("step"), subject.get("which"))
    of = f"{subject['name']} at {which}" if which else subject["name"]
    how = "" if made.computed else ", read from the cache of features"
    yield f"wrote {made.file}: {counted(made.samples, 'sample')} of {', '.join(data['patterns'])}"
    yield f"  {', '.join(arrays)} {made.dtype}{label}; layer {made.about['layer']} of {of}{how}"
    lack, bad = left_out["without_view"], left_out["undecodable"]
    if lack:
        yield f"  left out: {counted(lack, 'sample that lacks', 'samples that lack')} a view{_hint(data['missing'])}"
    if bad:
        first = left_out["first_undecodable"]
        yield f"  left out: {counted(bad, 'bad sample')}, first {first}; `mvssl verify` says why"
    for name, count in made.about["absent"].items():
        yield f"  without {name}: {counted(count, 'sample')}; {_absent_value(made, name)}"
    yield f"  load it: {_load_command(made)}"


def _hint(missing: str) -> str:
    return "; data.missing=mask keeps samples that have another view" if missing == "drop" else ""


def _absent_value(made: Embedded, name: str) -> str:
    if made.file.suffix == ".npz":
        return "their label is -1, or NaN" if name == "label" else "their rows are NaN"
    return "their value is null" if made.file.suffix == ".parquet" else "they have no such field"


def _load_command(made: Embedded) -> str:
    view = next(iter(made.widths))
    if made.file.suffix == ".npz":
        return f'numpy.load("{made.file}")["{view}"]'
    if made.file.suffix == ".parquet":
        return f'pandas.read_parquet("{made.file}")["{view}"]'
    return f"data.train={made.file.absolute()} data.columns.{view}.field={view}.npy, as a view of `name: vector`"
