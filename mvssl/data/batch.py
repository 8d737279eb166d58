"""Samples stacked to a batch: the one thing that the rest of mvssl sees of the data."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mvssl.data.decoding.faults import Bad

Sample = dict[str, np.ndarray]  # column -> array; a column that the sample lacks is left out


class Batch(NamedTuple):
    """n samples. A NamedTuple of tensors, so that torch can pin it and share it between processes."""

    columns: dict[str, Tensor]  # column -> [n, ...]: uint8 images, float32, int64 labels
    position: Tensor  # int64 [n], place in the run
    index: Tensor  # int64 [n], which sample of the source, after substitution
    present: dict[str, Tensor]  # column -> bool [n], for columns that samples may lack; their rows are zero
    bad: list[Bad]


class Form(NamedTuple):
    """What every sample of a column looks like."""

    shape: tuple[int, ...]
    dtype: np.dtype


def stack(samples: list[Sample], forms: dict[str, Form], optional: set[str], position, index, bad: list[Bad]) -> Batch:
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
