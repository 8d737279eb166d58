"""RUN/versions.json: the versions of Python and of the libraries that may change results."""

import importlib.metadata
import platform
from pathlib import Path

from pydantic import ConfigDict

from mvssl.checkpoints.state import JsonForm, Text
from mvssl.files import read_json

LIBRARIES = (
    "mvssl", "torch", "torchvision", "timm", "accelerate", "kornia", "webdataset", "scikit-learn", "numpy", "scipy",
    "pillow",
)  # fmt: skip


class Versions(JsonForm):
    """The content of versions.json: name -> version."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Text]


def versions() -> dict[str, str]:
    """Return the versions by name, Python first."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in LIBRARIES}


def other_versions(folder: Path) -> list[str]:
    """Return a line for each version that differs from the run's: defaults and rounding may have changed."""
    written = Versions.parse(read_json(folder / "versions.json"))
    before = written.__pydantic_extra__ if written else {}
    return [
        f"  version of {name}: {before[name]} -> {now}"
        for name, now in versions().items()
        if before.get(name, now) != now
    ]
