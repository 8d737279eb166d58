"""Samples stacked to a batch: the one thing that the rest of mvssl sees of the data."""

from collections import Counter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mvssl.data.sample_errors import BadSample, SampleError
from mvssl.errors import DataError

Sample = dict[str, np.ndarray]  # column -> array; a column that the sample lacks is left out


class Batch(NamedTuple):
    """n samples. A NamedTuple of tensors, so that torch can pin it and share it between processes."""

    columns: dict[str, Tensor]  # column -> [n, ...]: uint8 images, float32, int64 labels
    position: Tensor  # int64 [n], place in the run
    index: Tensor  # int64 [n], which sample of the source, after substitution
    present: dict[str, Tensor]  # column -> bool [n], for columns that samples may lack; their rows are zero
    bad: list[BadSample]


class Form(NamedTuple):
    """What every sample of a column looks like."""

    shape: tuple[int, ...]
    dtype: np.dtype


def stack_samples(
    samples: list[Sample], forms: dict[str, Form], optional: set[str], position, index, bad: list[BadSample]
) -> Batch:
    """Samples that agree with `forms` as a batch; absent columns, all in `optional`, become rows of zeros."""
    columns, present = {}, {}
    for name, form in forms.items():
        block = np.zeros((len(samples), *form.shape), form.dtype)
        for row, sample in enumerate(samples):
            if name in sample:
                block[row] = sample[name]
        columns[name] = torch.from_numpy(block)
        if name in optional:
            present[name] = torch.tensor([name in sample for sample in samples], dtype=torch.bool)
    return Batch(columns, torch.as_tensor(position), torch.as_tensor(index), present, bad)


def common_form(name: str, arrays: list[np.ndarray]) -> Form:
    """What more than half of `arrays` look like. Raises `DataError` where they differ too much for that."""
    counts = Counter((array.shape, array.dtype) for array in arrays)
    (shape, dtype), most = counts.most_common(1)[0]
    if 2 * most <= len(arrays) and len(arrays) > 1:
        seen = ", ".join(f"{list(shape)} {dtype}" for shape, dtype in list(counts)[:4])
        raise DataError(f"columns.{name}: its samples differ in shape ({seen}){_advice(list(counts))}")
    return Form(shape, dtype)


def _advice(forms: list[tuple[tuple[int, ...], np.dtype]]) -> str:
    shapes = [shape for shape, _ in forms]
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


def conform(name: str, array: np.ndarray, form: Form) -> np.ndarray:
    """`array` itself. Raises `SampleError` where it is not of the column's `form`."""
    if array.shape == form.shape and array.dtype == form.dtype:
        return array
    advice = _advice([(array.shape, array.dtype), (form.shape, form.dtype)])
    given, wanted = f"{list(array.shape)} {array.dtype}", f"{list(form.shape)} {form.dtype}"
    raise SampleError(f"it is {given} where the column is {wanted}{advice}", name)


def as_class_labels(labels: Tensor) -> Tensor:
    """Raises `DataError` for an angle, a pose, a list of class numbers: rounded, they would pass for classes."""
    if labels.ndim == 2:
        wrong = (labels != 0) & (labels != 1) & (labels >= 0) | labels.isnan()
        said = "a list is 0 or 1 for each class; of a list of class numbers say how many there are: classes: 40"
    else:
        wrong = labels != labels.floor() if labels.is_floating_point() else labels != labels
        said = "a label is the number of a class, a whole one"
    if wrong.any():
        raise DataError(f"data.label: {labels[wrong][0].item():g} is no class; {said}")
    return labels.float() if labels.ndim == 2 else labels.long()
