"""How counts are said to people."""


def counted(n: int, one: str, many: str = "") -> str:
    """1 sample, 1,024 samples; `many` where it is not `one` and an s."""
    return f"{n:,} {one if n == 1 else many or f'{one}s'}"
