"""The contract of a source of samples, which loaders read."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress

from mvssl.data.batch import ArraySpec, Batch, Sample, stack_samples
from mvssl.data.sample_errors import SampleError
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
        """Return sample `i`, 0 <= i < len, without the columns that it lacks. Raises `SampleError`."""

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
        """Return samples by number as a batch, position == index. Those that cannot be used are left out."""
        samples, index = [], []
        for i in numbers:
            with suppress(SampleError):
                samples.append(self[int(i)])
                index.append(int(i))
        return stack_samples(samples, self.specs, self.optional, index, index, [])
