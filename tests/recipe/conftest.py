"""A recipe that is correct; tests change one thing in it."""

from pathlib import Path

import pytest

GOOD = """
data: {train: "a/*.tar", columns: {image: {field: jpg}}, batch_size: 64}
views: {a: {from: image, augment: dim}, b: {from: image, geometry: a}}
encoder: {a: {name: resnet18}, b: {name: resnet18}}
objective: [{name: cmc, weight: 3e-4}]
train: {steps: 10, out: runs/x}
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    return file
