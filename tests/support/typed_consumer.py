"""A program that uses every public function of mvssl. It is not run: the type checker reads it."""

from pathlib import Path
from typing import Any, assert_type

from mvssl import embed, evaluate, export, load_recipe, load_run, report, train
from mvssl.embedding import Embedded
from mvssl.exporting import ExportedEncoder
from mvssl.recipe import Recipe
from mvssl.reporting import WrittenReport
from mvssl.runs import LoadedRun
from mvssl.training.loop import Outcome


def use_everything(file: Path, dataset: Any) -> None:
    recipe = load_recipe(file, ["optim.lr=1e-3"])
    assert_type(recipe, Recipe)
    outcome = train(recipe, data=dataset, then=False)
    assert_type(outcome, Outcome)
    assert_type(train(str(file), ["train.steps=10"]), Outcome)
    run = load_run(outcome.folder, trust=["package"], checkpoint="best")
    assert_type(run, LoadedRun)
    records = evaluate(outcome.folder, probes=["knn"], overrides=["evaluate.precision=bf16"], checkpoint=10)
    assert records[0]["value"] > 0
    evaluate(run, views=["image"], layer=0, data="train/*.tar", test=["val/*.tar"])
    evaluate("timm:resnet18", recipe=file, weights="pretrained")
    assert_type(embed(run, "features.npz", views=["image"], half=True), Embedded | None)
    assert_type(export(run, "backbone"), list[ExportedEncoder])
    assert_type(export(str(run.folder), Path("backbone"), checkpoint="last"), list[ExportedEncoder])
    assert_type(report(run, "page.html", samples=0), WrittenReport)
