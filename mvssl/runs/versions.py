"""The versions of Python and of the libraries that may change results."""

import importlib.metadata
import platform

LIBRARIES = (
    "mvssl", "torch", "torchvision", "timm", "accelerate", "kornia", "webdataset", "scikit-learn", "numpy", "scipy",
    "pillow",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions by name, Python first."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in LIBRARIES}
