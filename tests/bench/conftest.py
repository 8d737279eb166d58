"""A small recipe to benchmark."""

import pytest

from mvssl.data.packing import pack
from mvssl.recipe import parse_recipe


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    pack("digits", root / "digits", progress=False)
    return parse_recipe(
        {
            "data": {
                "root": str(root), "train": "digits/train/*.tar", "columns": {"image": {"field": "png"}},
                "batch_size": 16, "workers": 0,
            },
            "views": {"digit": {"from": "image", "count": 2, "size": 16}},
            "encoder": {"name": "test_resnet"},
            "objective": {"name": "cmc"},
            "train": {"steps": 1, "out": str(root / "run"), "trackers": []},
        }
    )  # fmt: skip
