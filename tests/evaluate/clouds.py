"""Features whose labels show as far as one likes, for the tests of probes."""

import torch

from mvssl.evaluate import Labelled


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
