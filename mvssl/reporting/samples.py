"""What the run's encoders say of a few samples: the part of a report that needs checkpoint and shards.

in   a run, and how many samples to look at
out  a `Look`: features by view, labels and their names, and the samples themselves to draw

Samples are held-out ones where the recipe names `data.val`, spread evenly over the shards: chosen by place, not result.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mvssl.data import Batch, ShardSource, as_class_labels
from mvssl.errors import DataError, RecipeError
from mvssl.evaluation.features.extraction import DIVERGED, not_finite
from mvssl.evaluation.features.layers import build_encode
from mvssl.evaluation.features.splits import open_labelled
from mvssl.recipe import Recipe
from mvssl.runs.load import LoadedRun, load_run
from mvssl.text import counted
from mvssl.views import build_alike
from mvssl.views.normalize import spread

AT_ONCE = 64  # samples encoded together


@dataclass(frozen=True)
class Look:
    """Features [n, d] by view of n samples of `source`, whose indices are `rows`; labels [n], [n, c] or None."""

    run: LoadedRun
    source: ShardSource
    split: str
    rows: list[int]
    features: dict[str, Tensor]
    labels: Tensor | None
    classes: list[str]
    device: torch.device

    @property
    def features_of(self) -> str:
        """Whose features these are, in words."""
        return f"layer {self.run.recipe.evaluate.layer}, {self.run.weights}"

    def batch(self, numbers: Iterable[int]) -> Batch:
        """The samples with these numbers among the n."""
        return take(self.source, [self.rows[number] for number in numbers])

    def class_name(self, label: int) -> str:
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)


def look(folder: Path, trust: Iterable[str], samples: int, checkpoint: str = "last") -> Look:
    """Open a checkpoint (see `load_run`) and encode at most `samples` samples. Raises `DataError`, `RecipeError`."""
    run = _load(folder, trust, checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source, split = open_some(run.recipe)
    build_alike(run.recipe.views, source.shapes, run.views.shapes, str(folder))
    encode = build_encode(run.model.to(device), run.views, run.recipe.evaluate.layer, device)
    rows: list[int] = []
    labels: list[Tensor] = []
    features: dict[str, list[Tensor]] = {}
    chosen = spread(len(source), samples).tolist()
    for begin in range(0, len(chosen), AT_ONCE):
        batch = take(source, chosen[begin : begin + AT_ONCE])
        with torch.inference_mode():
            encoded = encode(batch) if len(batch.index) else {}
        for view, x in encoded.items():
            features.setdefault(view, []).append(x.float().cpu())
        rows += batch.index.tolist()
        found = batch.columns.get("label")
        labels += [found] if found is not None and found.ndim <= 2 else []  # a picture is no label
    if not rows:
        raise DataError(f"none of {counted(len(chosen), 'sample')} of {source.paths[0].parent} can be decoded")
    together = {view: torch.cat(parts) for view, parts in features.items()}
    for view, x in together.items():
        if not (whole := x.isfinite().all(1)).all():
            raise not_finite(source, rows[int(whole.int().argmin())], view, DIVERGED)
    told = _classes(torch.cat(labels)) if labels else None
    named = run.recipe.data.label.names if run.recipe.data.label else None
    return Look(run, source, split, rows, together, told, named or class_names(source.paths), device)


def _classes(labels: Tensor) -> Tensor | None:
    """Labels as classes; None where they are numbers, or pictures."""
    try:
        return as_class_labels(labels) if labels.ndim < 3 else None
    except DataError:
        return None


def _load(folder: Path, trust: Iterable[str], checkpoint: str) -> LoadedRun:
    """Open a run whose old checkpoints may be pruned at this very moment."""
    for _ in range(3):
        with contextlib.suppress(FileNotFoundError):
            return load_run(folder, trust, checkpoint)
    raise DataError(f"the checkpoints of {folder} go as soon as they come; try again")


def open_some(recipe: Recipe) -> tuple[ShardSource, str]:
    """The shards to show samples of, with labels where they have them, and what they are called."""
    patterns, split = (recipe.data.val, "held-out") if recipe.data.val else (recipe.data.train, "training")
    if not patterns:
        raise RecipeError("the recipe names no shards; a run on a dataset of one's own is shown without samples")
    return open_labelled(recipe.data, patterns, required=False, progress=False), split


def take(source: ShardSource, indices: Iterable[int]) -> Batch:
    """Samples by index as a batch; those that cannot be decoded are left out."""
    return source.read_batch(indices)


def class_names(paths: Iterable[Path]) -> list[str]:
    """The lines of classes.txt, which `mvssl pack` writes beside its splits; none where there is no such file."""
    for folder in {place: None for path in paths for place in (path.parent, path.parent.parent)}:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return (folder / "classes.txt").read_text().splitlines()
    return []
