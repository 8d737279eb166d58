"""How torch's threads wait for each other on a CPU.

in   the environment, before torch is imported
out  GOMP_SPINCOUNT in it, which libgomp reads when torch loads it

torch's threads share each operation and meet at its end. libgomp lets a thread that waits spin for some milliseconds.
If another program wants the core, the thread that is waited for cannot run meanwhile, and training nearly stops. A
short spin costs nothing on an idle machine: docs/background/measurements.md has the figures.
"""

import os
import sys

SPINS = "1000"  # some microseconds
SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def shorten_spinning() -> None:
    """Let waiting threads spin for a short time only, unless the user has set how they wait or torch is loaded."""
    if "torch" not in sys.modules and not any(name in os.environ for name in SETTINGS):
        os.environ["GOMP_SPINCOUNT"] = SPINS


def describe_waiting() -> str:
    """Return how waiting threads spin, in words; empty if the environment does not say."""
    return ", ".join(f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ)
