"""What depends on the step is a function of the step: nothing to save, nothing to advance."""


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
