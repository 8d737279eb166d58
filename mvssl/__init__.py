"""mvssl: distributed multi-view self-supervised training.

The road, in four hops:

    shards --data--> Batch --views--> Views --encoders--> Features by view --objectives--> loss, metrics

Importing the package registers its networks with timm, so that an exported backbone reloads by name. The command line
leaves that to the verbs that need networks: torch and timm take seconds, and `mvssl --help` needs neither.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mvssl.recipe import load_recipe
    from mvssl.training import train

__all__ = ["load_recipe", "train"]
__version__ = "0.1.0"


def _is_the_command() -> bool:
    """Whether this is `mvssl VERB` or `python -m mvssl VERB`; where in doubt it is not."""
    script, *rest = sys.argv or [""]
    if script == "-m":  # which module Python looks for stands before its arguments
        return sys.orig_argv[-len(rest) - 1] == "mvssl"
    return Path(script).name == "mvssl"


def __getattr__(name: str):
    """`mvssl.train` and `mvssl.load_recipe` are imported when first asked for."""
    if name == "train":
        from mvssl.training import train

        return train
    if name == "load_recipe":
        from mvssl.recipe import load_recipe

        return load_recipe
    raise AttributeError(f"module 'mvssl' has no attribute {name!r}")


if not _is_the_command():
    from mvssl import encoders as encoders
