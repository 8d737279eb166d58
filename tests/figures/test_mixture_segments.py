"""Segments of a run with a mixture: tiles in the colours of the components."""

import re

import pytest
import small_runs
import torch
from PIL import Image

from mvssl import train
from mvssl.errors import OutputError, RecipeError
from mvssl.figures.mixture_segments import draw_segments, effective_components
from mvssl.runs.load import load_run


def run(folder, **objective):
    root = small_runs.write_shards(folder / "train").parent
    table = {"name": "amdim", "embed": 8, "scales": [["vector", 0]], **objective}
    train(small_runs.recipe(root, folder / "run", objective=table, train__steps=1, train__save_every=1))
    return load_run(folder / "run")


def test_a_run_with_a_mixture_is_drawn_and_described(tmp_path):
    loaded = run(tmp_path, mixture={"components": 3})
    lines = draw_segments(loaded, tmp_path / "segments.png", samples=4)
    assert len(lines) == 1
    assert lines[0].startswith("image, 0 4x4: ")
    in_use, count, entropy, most = re.findall(r"\d+(?:\.\d+)?", lines[0].partition(": ")[2])
    assert (count, most) == ("3", "1.10")
    assert 1 <= float(in_use) <= 3
    assert 0 <= float(entropy) <= 1.1
    with Image.open(tmp_path / "segments.png") as picture:
        assert picture.height > picture.width
        assert len(picture.convert("RGB").getcolors(maxcolors=10**6)) > 100
    other = str(small_runs.write_shards(tmp_path / "other", counts=(5,)))
    assert draw_segments(loaded, tmp_path / "segments.png", data=[other]) != lines
    with pytest.raises(OutputError):
        draw_segments(loaded, tmp_path / "segments.png" / "segments.png")


def test_a_run_without_a_mixture_has_nothing_to_draw(tmp_path):
    with pytest.raises(RecipeError):
        draw_segments(run(tmp_path), tmp_path / "segments.png")


def test_components_in_use_are_counted_by_their_shares():
    assert effective_components(torch.zeros(2, 3, 3, dtype=torch.long), 5) == pytest.approx(1)
    assert effective_components(torch.arange(4).repeat(3, 2, 1), 8) == pytest.approx(4)
    assert 1 < effective_components(torch.tensor([[[0] * 9 + [1]]]), 2) < 1.5
