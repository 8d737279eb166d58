"""The contract of a source of samples, which loaders read."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress

import numpy as np
import torch

from mvssl.data.batch import ArraySpec, Batch, Sample
from mvssl.data.sample_errors import BadSample, SampleError
from mvssl.recipe.schema import Column


class Source(ABC):
    """Samples by number. `source[i]` is a dict column -> array, in which every column has one shape and type."""

    columns: dict[str, Column]
    specs: dict[str, ArraySpec]  # of the same columns
    optional: set[str]  # columns that a sample may lack
    dropped: int  # samples that were left out because they lack a column
    fingerprint: str  # names the data, whichever folder they are in; a run resumes only with the same

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, i: int, /) -> Sample:
        """Return sample `i`, 0 <= i < len, without the columns that it lacks. Raise `SampleError`."""

    @abstractmethod
    def key(self, i: int) -> str:
        """Return the name of sample `i` in its shard or dataset."""

    @abstractmethod
    def shard(self, i: int) -> str:
        """Return the path of the shard of sample `i`, or the class of the dataset."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of one sample of each column."""
        return {name: spec.shape for name, spec in self.specs.items()}

    def read_batch(self, numbers: Iterable[int]) -> Batch:
        """Return the samples with these numbers as a batch, position == index. Unusable samples are left out."""
        samples, index = [], []
        for i in numbers:
            with suppress(SampleError):
                samples.append(self[int(i)])
                index.append(int(i))
        return self.stack(samples, index, index, [])

    def stack(
        self, samples: list[Sample], position: Sequence[int] | np.ndarray, index: Sequence[int] | np.ndarray,
        bad: list[BadSample],
    ) -> Batch:  # fmt: skip
        """Return samples of this source as a batch. If a sample lacks an optional column, its row is zero."""
        columns, present = {}, {}
        for name, spec in self.specs.items():
            block = np.zeros((len(samples), *spec.shape), spec.dtype)
            for row, sample in enumerate(samples):
                if name in sample:
                    block[row] = sample[name]
            columns[name] = torch.from_numpy(block)
            if name in self.optional:
                present[name] = torch.tensor([name in sample for sample in samples], dtype=torch.bool)
        position, index = np.asarray(position, np.int64), np.asarray(index, np.int64)
        return Batch(columns, torch.from_numpy(position), torch.from_numpy(index), present, bad)
