"""Views are compared with the same operations of other libraries; no speed is tested."""

import json

import pytest
import torch

from mvssl.bench.inputs.views import SETTINGS, Setting, bench_views, list_rivals, make_images, sample_views

CPU = torch.device("cpu")


def test_every_library_is_compared_with_and_without_blur(tmp_path, capsys):
    result = bench_views(settings=(Setting(8, (10, 12), 4),), rounds=2, block=0.001, json_file=tmp_path / "views.json")
    written = json.loads((tmp_path / "views.json").read_text())
    assert written["ratio"] == result["ratio"] == min(row["ratio"] for row in written["rows"])
    assert [row["what"] for row in result["rows"]] == [
        f"8 pixels, {blur}, beside {library}"
        for blur in ("without blur", "with blur")
        for library in ("kornia", "torchvision")
    ]
    assert all(row["ratio"] > 0 for row in result["rows"])
    for blur, shares in result["shares"].items():
        assert sum(shares.values()) == pytest.approx(1)
        assert ("blur" in shares) == (blur == "8 pixels with blur")
    assert "bottleneck: at 8 pixels without blur, " in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize("blurred", [False, True])
def test_all_ways_make_views_of_the_same_kind(blurred):
    setting = Setting(24, (30, 40), 64)
    ours = next(sample_views(setting, make_images(setting), {} if blurred else {"blur_p": 0.0}))
    ways = list_rivals(setting, CPU, blurred=blurred)
    for way in (*ways["kornia"].values(), *ways["torchvision"].values()):
        theirs = way()
        assert theirs.shape == ours.shape
        assert theirs.mean().item() == pytest.approx(ours.mean().item(), abs=0.4)
        assert theirs.std().item() == pytest.approx(ours.std().item(), rel=0.3)


def test_the_settings_are_those_of_the_documentation():
    assert [(s.pixels, s.source) for s in SETTINGS] == [(32, (32, 32)), (64, (96, 96)), (224, (256, 341))]
