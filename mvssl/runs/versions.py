"""The versions that decide what is computed: Python's and the libraries'."""

import importlib.metadata
import platform

LIBRARIES = (
    "mvssl", "torch", "torchvision", "timm", "accelerate", "kornia", "webdataset", "scikit-learn", "numpy", "scipy",
    "pillow",
)  # fmt: skip


def versions() -> dict[str, str]:
    """By name, Python first."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in LIBRARIES}
