"""What depends on the step is a function of the step: nothing to save, nothing to advance."""

import math


def ramp(step: int, *, start: float, stop: float, begin: int, end: int) -> float:
    """Geometric climb from `start` to `stop` between steps `begin` and `end`, flat outside.

    The schedule of the information bottleneck's beta (Federici et al., 2020, arXiv:2002.07017). With begin = end = 0 it
    is the constant `stop`.

    >>> [round(ramp(step, start=1e-3, stop=1, begin=50_000, end=150_000), 6) for step in (0, 100_000, 200_000)]
    [0.001, 0.031623, 1.0]
    """
    if step >= end:
        return stop
    done = max(step - begin, 0) / (end - begin)
    return start * (stop / start) ** done


def warm(step: int, *, warmup: int) -> float:
    """Share of the full rate: a line from 1/warmup at step 0 to 1 at step warmup - 1, then 1."""
    return min((step + 1) / warmup, 1.0) if warmup else 1.0


def cosine(step: int, *, steps: int, warmup: int = 0, final: float = 0.0) -> float:
    """Share of the full rate: `warm`, then half a cosine that reaches `final` at the last of `steps`.

    Loshchilov and Hutter, 2017, arXiv:1608.03983, without restarts.

    >>> [round(cosine(step, steps=5), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup:
        return warm(step, warmup=warmup)
    done = min((step - warmup) / max(steps - 1 - warmup, 1), 1.0)
    return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2
