"""A user's view from another package, named by its import path: training, checks, evaluation, report and export."""

import json
import sys

import pytest
import small_runs
from PIL import Image

from mvssl import train
from mvssl.errors import RecipeError
from mvssl.evaluation import evaluate
from mvssl.exporting import export
from mvssl.pipeline.pictures import draw_views
from mvssl.recipe import ViewConfig
from mvssl.reporting import report
from mvssl.runs.load import load_run
from mvssl.views import build_views

MODULE = "radar_views"
SOURCE = '''
import torch

from mvssl.views import View


class Speckle:
    """Only what is required: a shape and a call."""

    def __init__(self, shape: tuple[int, ...], *, strength: float = 0.2):
        self.shape, self.strength = shape, strength

    def __call__(self, x, draws):
        x = x.float() / 255
        if draws is None:
            return x
        noise = draws.within("speckle", x.device).normal("speckle", *self.shape, dtype=torch.float32)
        return x * (1 + self.strength * noise)


class NamedSpeckle(Speckle, View):
    """The members that a view may offer as well."""

    presets = {"strong": {"strength": 0.5}}

    def __init__(self, shape: tuple[int, ...], *, strength: float = 0.2):
        super().__init__(shape, strength=strength)
        self.mean, self.std = torch.tensor([0.25, 0.5, 0.75]), torch.tensor([2.0])
        self.bands, self.interpolation, self.shows = ("VV", "VH", "HH"), "nearest", "radar in false colour"

    def to_rgb(self, x):
        return x.flip(1).clamp(0, 1)


class NoCall:
    def __init__(self, shape: tuple[int, ...]):
        self.shape = shape


class NoShape(View):
    def __init__(self, shape: tuple[int, ...]):
        pass

    def __call__(self, x, draws):
        return x
'''


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / f"{MODULE}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path / "theirs")
    yield
    sys.modules.pop(MODULE, None)


@pytest.mark.parametrize("name", ["Speckle", "NamedSpeckle"])
def test_an_outside_view_trains_and_is_evaluated_reported_and_exported(tmp_path, name):
    small_runs.write_shards(tmp_path / "train")
    views = {"image": {"from": "image", "name": f"{MODULE}:{name}", "strength": 0.1, "count": 2}}
    recipe = small_runs.recipe(tmp_path, tmp_path / "run", views=views, train__check_every=3)
    folder = train(recipe).folder
    checked = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert any("val/loss" in line for line in checked)
    with Image.open(draw_views(recipe, tmp_path / "sheet.png", samples=2)) as sheet:
        assert sheet.width > 300

    run = load_run(folder, trust=[MODULE])
    assert {record["encoder"] for record in evaluate(run, probes=["knn"], show=False)} >= {"trained", "untrained"}
    report(folder, trust=[MODULE])
    assert (folder / "report.html").stat().st_size > 10_000
    export(run, tmp_path / "export")
    config = json.loads((tmp_path / "export" / "config.json").read_text())
    derived = name == "NamedSpeckle"
    assert config["mvssl"]["bands"] == ({"image": ["VV", "VH", "HH"]} if derived else {})
    assert config["pretrained_cfg"]["interpolation"] == ("nearest" if derived else "bilinear")
    assert config["pretrained_cfg"]["mean"] == ([0.25, 0.5, 0.75] if derived else [0.0] * 3)
    assert config["pretrained_cfg"]["std"] == ([2.0] if derived else [1.0]) * 3


def test_an_outside_view_has_its_own_presets():
    table = ViewConfig.model_validate({"from": "x", "name": f"{MODULE}:NamedSpeckle", "augment": "strong"})
    assert build_views({"x": table}, {"x": (3, 4, 4)}).view("x").strength == 0.5


@pytest.mark.parametrize(
    ("name", "options", "place"),
    [
        ("Speckle", {"strenght": 0.1}, "views.x.strenght"),
        ("Speckle", {"augment": "strong"}, "views.x.augment"),
        ("NoCall", {}, "views.x.name.*__call__"),
        ("NoShape", {}, "views.x.name.*shape"),
        ("NoSuch", {}, "views.x.name.*NoSuch"),
    ],
)
def test_faults_of_an_outside_view_name_their_place(name, options, place):
    table = ViewConfig.model_validate({"from": "x", "name": f"{MODULE}:{name}", **options})
    with pytest.raises(RecipeError, match=place):
        build_views({"x": table}, {"x": (3, 4, 4)})
