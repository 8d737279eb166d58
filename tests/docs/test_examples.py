"""The Python examples of the documents run as they are, page by page, beside a small run of the quickstart."""

import shutil
import sys
from pathlib import Path

import pytest
from pages import PAGES, ROOT, blocks, name

from mvssl import evaluate, export, load_recipe, report, train

EXAMPLES = [page for page in PAGES if blocks(page, "python")]
STEPS = ["train.steps=2", "data.workers=0", "train.then=[]", "train.check_every=1", "train.check_samples=64"]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A working folder as the documents assume it: recipes, packed digits, a run and its export."""
    place = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "recipes", place / "recipes")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.delenv("MVSSL_DATA", raising=False)
        train(load_recipe("recipes/quickstart.yaml", STEPS))
        export("runs/quickstart", "backbone")
    return place


@pytest.fixture(autouse=True)
def _without_data(monkeypatch):
    monkeypatch.delenv("MVSSL_DATA", raising=False)


@pytest.mark.parametrize("page", EXAMPLES, ids=name)
def test_the_examples_of_a_page_run(page: Path, folder: Path, monkeypatch):
    monkeypatch.chdir(folder)
    names = {"__name__": "example"}
    for number, block in enumerate(blocks(page, "python"), start=1):
        exec(compile(block, f"{name(page)}, block {number}", "exec"), names)


@pytest.mark.parametrize(
    ("page", "module", "overrides"),
    [
        ("own_view", "my_views", ["views={sar: {from: image, name: 'my_views:Speckle', strength: 0.3, count: 2}}"]),
        ("own_objective", "agree", ["objective={name: 'agree:Agree', spread: 2.0}"]),
    ],
)
def test_a_class_of_the_guides_goes_from_training_to_export(page, module, overrides, folder, tmp_path, monkeypatch):
    (tmp_path / f"{module}.py").write_text(blocks(ROOT / f"docs/guides/{page}.md", "python")[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(folder)
    out = f"runs/{module}"
    outcome = train(load_recipe("recipes/quickstart.yaml", [*STEPS, *overrides, f"train.out={out}"]))
    assert outcome.step == 2
    records = evaluate(out, probes=["knn"], trust=[module])
    assert {record["encoder"] for record in records} >= {"trained", "untrained"}
    assert report(out, samples=50, trust=[module]).file.exists()
    export(out, f"{out}/backbone", trust=[module])
    assert (Path(out) / "backbone" / "config.json").exists()
    sys.modules.pop(module)


def test_a_probe_of_the_guides_gives_records_with_paired_gains(folder, tmp_path, monkeypatch):
    (tmp_path / "my_probes.py").write_text(blocks(ROOT / "docs/guides/own_probe.md", "python")[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(folder)
    name = "my_probes:NearestMean"
    for cosine in (True, False):
        options = f"evaluate.options={{'{name}': {{cosine: {str(cosine).lower()}}}}}"
        records = evaluate("runs/quickstart", overrides=[options], probes=[name])
        trained = next(record for record in records if record["encoder"] == "trained")
        assert trained["protocol"]["cosine"] == cosine
        assert trained["gain"]["untrained"]["standard_error"] is not None
    sys.modules.pop("my_probes")


def test_the_estimators_of_the_reference_print_what_the_comments_say(capsys):
    exec(blocks(ROOT / "docs/reference/objectives.md", "python")[0], {})
    zero, ceiling = (float(line.strip("tensor()")) for line in capsys.readouterr().out.split())
    assert zero == 0
    assert ceiling == pytest.approx(3.58, abs=0.01)


def test_an_objective_alone_learns_in_a_loop():
    exec(blocks(ROOT / "docs/reference/objectives.md", "python")[1], names := {})
    assert names["metrics"]["bound/rgb-depth"] > 3
