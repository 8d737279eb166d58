"""Features whose labels show as far as one likes, and how large a tensor a probe makes, for the tests of probes."""

import contextlib
from collections.abc import Iterator

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mvssl.evaluation import Labelled


def clusters(n: int, apart: float, kinds: int = 4, width: int = 8, seed: int = 0) -> Labelled:
    """Gaussian clouds around `kinds` axes, `apart` standard deviations from the origin."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % kinds
    return Labelled(apart * torch.eye(kinds, width)[labels] + torch.randn(n, width, generator=generator), labels)


def several(n: int, seed: int = 0) -> Labelled:
    """Multi-hot labels that three noisy features show."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.rand(n, 3, generator=generator) < 0.3).float()
    return Labelled(labels + 0.5 * torch.randn(n, 3, generator=generator), labels)


@contextlib.contextmanager
def largest_made() -> Iterator[list[int]]:
    """Inside, `[0]` of what it gives is the largest number of elements of any tensor that an operation made."""
    largest = [0]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            made = func(*args, **(kwargs or {}))
            sizes = [x.numel() for x in tree_leaves(made) if isinstance(x, torch.Tensor)]
            largest[0] = max(largest[0], *sizes, 0)
            return made

    with Watch():
        yield largest
