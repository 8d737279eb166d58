"""Quick imports of large packages.

in   a block of import statements
out  the same modules; Python's garbage collector neither runs inside the block nor looks at them later

Importing torch and timm makes a million objects that stay. The collector looks at them again and again, which takes a
fifth of the time until the first step, and in training each full collection would stop the loop for 0.1 s.
"""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected_imports() -> Iterator[None]:
    """Import without the garbage collector, and keep what exists at the end of the block from later collections."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()
            gc.enable()
