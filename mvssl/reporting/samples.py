"""Some samples and the features that the run's encoders give them: what a report takes from checkpoint and shards.

in   a run folder and a number of samples
out  `EncodedSamples`: features by view, labels and class names, and access to the samples themselves

They are held-out samples if the recipe names `data.val`. They are spread evenly over the shards, whatever their result.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mvssl.data import Batch, ShardSource, as_class_labels
from mvssl.data.order import spread_indices
from mvssl.errors import DataError
from mvssl.evaluation.features.extraction import DIVERGED, not_finite
from mvssl.evaluation.features.layers import build_encode
from mvssl.evaluation.features.splits import open_samples
from mvssl.runs.load import LoadedRun, load_run
from mvssl.text import counted
from mvssl.views import build_matching_views

BATCH_SIZE = 64  # samples encoded together


@dataclass(frozen=True)
class EncodedSamples:
    """n samples of `source` with their features by view, [n, d] float32 on the CPU."""

    run: LoadedRun
    source: ShardSource
    split: str  # held-out or training
    indices: list[int]  # of the samples in `source`
    features: dict[str, Tensor]
    labels: Tensor | None  # [n], or multi-hot [n, c]; None if there are none or they are no classes
    classes: list[str]
    device: torch.device

    @property
    def origin(self) -> str:
        """From which layer and weights the features are."""
        return f"layer {self.run.recipe.evaluate.layer}, {self.run.weights}"

    def decode(self, numbers: Iterable[int]) -> Batch:
        """Return the samples with these numbers among the n."""
        return self.source.read_batch([self.indices[number] for number in numbers])

    def class_name(self, label: int) -> str:
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)


def encode_samples(folder: Path, trust: Iterable[str], samples: int, checkpoint: str = "last") -> EncodedSamples:
    """Open a checkpoint (see `load_run`) and encode at most `samples` samples. Raises `DataError`, `RecipeError`."""
    run = _load(folder, trust, checkpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    source, split = open_samples(run.recipe)
    build_matching_views(run.recipe.views, source.shapes, run.views.shapes, str(folder))
    encode = build_encode(run.model.to(device), run.views, run.recipe.evaluate.layer, device)
    indices: list[int] = []
    labels: list[Tensor] = []
    features: dict[str, list[Tensor]] = {}
    chosen = spread_indices(len(source), samples).tolist()
    for begin in range(0, len(chosen), BATCH_SIZE):
        batch = source.read_batch(chosen[begin : begin + BATCH_SIZE])
        with torch.inference_mode():
            encoded = encode(batch) if len(batch.index) else {}
        for view, x in encoded.items():
            features.setdefault(view, []).append(x.float().cpu())
        indices += batch.index.tolist()
        label = batch.columns.get("label")
        labels += [label] if label is not None and label.ndim <= 2 else []  # a picture is no label
    if not indices:
        raise DataError(f"none of {counted(len(chosen), 'sample')} of {source.paths[0].parent} can be decoded")
    vectors = {view: torch.cat(parts) for view, parts in features.items()}
    for view, x in vectors.items():
        if not (finite := x.isfinite().all(1)).all():
            raise not_finite(source, indices[int(finite.int().argmin())], view, DIVERGED)
    named = run.recipe.data.label.names if run.recipe.data.label else None
    classes = named or read_class_names(source.paths)
    return EncodedSamples(
        run, source, split, indices, vectors, _as_classes(torch.cat(labels)) if labels else None, classes, device
    )


def _as_classes(labels: Tensor) -> Tensor | None:
    """Return labels as classes; None for numbers and pictures."""
    try:
        return as_class_labels(labels) if labels.ndim < 3 else None
    except DataError:
        return None


def _load(folder: Path, trust: Iterable[str], checkpoint: str) -> LoadedRun:
    """Open a run that may remove its old checkpoints at the same time."""
    for _ in range(3):
        with contextlib.suppress(FileNotFoundError):
            return load_run(folder, trust, checkpoint)
    raise DataError(f"{folder} removes its checkpoints while they are read; try again")


def read_class_names(paths: Iterable[Path]) -> list[str]:
    """Return the lines of classes.txt beside the shards or one folder above; empty if there is no such file."""
    for folder in {place: None for path in paths for place in (path.parent, path.parent.parent)}:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return (folder / "classes.txt").read_text().splitlines()
    return []


def principal_components(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return rows [n, d] on their first `count` principal axes, [n, count], and the share of variance of each axis.

    Missing axes are zero. The largest loading of each axis is positive, so that signs do not depend on the machine.
    """
    centred = x.double() - x.double().mean(0)
    _, s, v = torch.linalg.svd(centred, full_matrices=False)
    v = v[:count] * v[:count].gather(1, v[:count].abs().argmax(1, keepdim=True)).sign()
    scores, total = centred @ v.T, (s**2).sum()
    share = (s[:count] ** 2 / total) if total > 0 else torch.zeros(len(s[:count]))
    missing = count - scores.shape[1]
    return F.pad(scores, (0, missing)).float(), F.pad(share, (0, missing)).float()
