"""A batch: the samples of one step, as tensors. The rest of mvssl uses the data only as batches.

in   samples, and the `ArraySpec` that all samples of a column share
out  `Batch`, tensors of n samples
"""

from collections import Counter
from typing import NamedTuple

import numpy as np
from torch import Tensor

from mvssl.data.drawn import DrawnParameters
from mvssl.data.sample_errors import BadSample, SampleError
from mvssl.errors import DataError

Sample = dict[str, np.ndarray]  # column -> array; a column that the sample lacks is left out


class Batch(NamedTuple):
    """n samples. It is a NamedTuple of tensors, so that torch can pin it and pass it between processes."""

    columns: dict[str, Tensor]  # column -> [n, ...]: uint8 images, float32, int64 labels
    position: Tensor  # int64 [n], place in the run
    index: Tensor  # int64 [n], number of the sample in its source, after substitution
    present: dict[str, Tensor]  # column -> bool [n], for columns that samples may lack; absent rows are zero
    bad: list[BadSample]
    drawn: DrawnParameters | None = None  # random parameters of the views, if the loader was asked to draw them


class ArraySpec(NamedTuple):
    """Shape and type of every sample of a column."""

    shape: tuple[int, ...]
    dtype: np.dtype


def common_spec(name: str, arrays: list[np.ndarray]) -> ArraySpec:
    """Return the shape and type of more than half of `arrays`. Raise `DataError` if there is no such majority."""
    counts = Counter(ArraySpec(array.shape, array.dtype) for array in arrays)
    spec, most = counts.most_common(1)[0]
    if 2 * most <= len(arrays) and len(arrays) > 1:
        examples = ", ".join(f"{list(shape)} {dtype}" for shape, dtype in list(counts)[:4])
        raise DataError(f"columns.{name}: its samples differ in shape ({examples}){_advice(list(counts))}")
    return spec


def require_spec(name: str, array: np.ndarray, spec: ArraySpec) -> np.ndarray:
    """Return `array`. Raise `SampleError` if its shape or type differs from the column's `spec`."""
    if array.shape == spec.shape and array.dtype == spec.dtype:
        return array
    advice = _advice([ArraySpec(array.shape, array.dtype), spec])
    given, wanted = f"{list(array.shape)} {array.dtype}", f"{list(spec.shape)} {spec.dtype}"
    raise SampleError(f"it is {given} where the column is {wanted}{advice}", name)


def _advice(specs: list[ArraySpec]) -> str:
    shapes = [spec.shape for spec in specs]
    if all(len(shape) == 2 for shape in shapes):
        return "; give the column length: N, or mode: mono to sound of one channel and of several"
    if any(len(shape) != 3 for shape in shapes):
        return "; pack them in one shape"
    advice = []
    if len({shape[1:] for shape in shapes}) > 1:
        advice.append("size: N or size: [HEIGHT, WIDTH]")
    if len({shape[0] for shape in shapes}) > 1:
        advice.append("mode: rgb or mode: gray")
    return f"; give the column {' and '.join(advice)}" if advice else "; store all of them with the same number of bits"


def as_class_labels(labels: Tensor) -> Tensor:
    """Return decoded labels as classes. A negative number means that a sample has no label.

    [n] becomes class numbers, int64 [n]. [n, c] of 0 and 1 becomes multi-hot float32 [n, c]. Raise `DataError` for
    other numbers, such as angles, poses or lists of class numbers. After rounding they would look like classes.
    """
    if labels.ndim == 2:
        wrong = (labels != 0) & (labels != 1) & (labels >= 0) | labels.isnan()
        rule = "a list holds 0 or 1 for each class; for a list of class numbers give their count, as in classes: 40"
    else:
        wrong = labels != labels.floor() if labels.is_floating_point() else labels != labels
        rule = "a label is a whole number, the number of a class"
    if wrong.any():
        raise DataError(f"data.label: {labels[wrong][0].item():g} is no class; {rule}")
    return labels.float() if labels.ndim == 2 else labels.long()
