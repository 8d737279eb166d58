"""mvssl: distributed multi-view self-supervised training.

The road, in four hops:

    shards --data--> Batch --views--> Views --encoders--> Features by view --objectives--> loss, metrics

Importing the package registers its networks with timm, so that an exported backbone reloads by name.
"""

from typing import TYPE_CHECKING

from mvssl import encoders as encoders
from mvssl.recipe import load_recipe

if TYPE_CHECKING:
    from mvssl.training import train

__all__ = ["load_recipe", "train"]
__version__ = "0.1.0"


def __getattr__(name: str):
    """`mvssl.train` is imported when it is first asked for: accelerate and webdataset are slow to load."""
    if name == "train":
        from mvssl.training import train

        return train
    raise AttributeError(f"module 'mvssl' has no attribute {name!r}")
