"""How exactly a device computes: torch's settings inside a command are the recipe's, and afterwards what they were."""

from dataclasses import replace

import pytest
import tiny
import torch

from mvssl import trainer
from mvssl.devices import arithmetic
from mvssl.errors import RecipeError
from mvssl.evaluate import evaluate
from mvssl.model import MultiView
from mvssl.recipe import parse_recipe
from mvssl.run import load_run
from mvssl.training import train
from mvssl.views import ViewSet

PARTS = torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn
IEEE, TF32 = {"ieee"}, {"tf32"}


def flags() -> tuple[set[str], bool]:
    """What float32 is computed in, of all kinds of operations, and whether cuDNN tries its algorithms."""
    return {part.fp32_precision for part in PARTS}, torch.backends.cudnn.benchmark


def settings() -> list:
    return [*(part.fp32_precision for part in PARTS), torch.backends.cudnn.benchmark]


@pytest.fixture
def seen(monkeypatch):
    """The flags, and whether autocast is on, whenever an encoder runs, and whenever views are made."""
    found = {"encode": [], "views": []}

    def watch(owner, name, kind):
        own = getattr(owner, name)

        def noted(self, *given, **keywords):
            found[kind].append((*flags(), torch.is_autocast_enabled("cpu")))
            return own(self, *given, **keywords)

        monkeypatch.setattr(owner, name, noted)

    watch(MultiView, "encode", "encode")
    watch(ViewSet, "_columns", "views")
    return found


@pytest.mark.parametrize(("precision", "inside"), [("fp32", IEEE), ("tf32", TF32), ("bf16", TF32)])
def test_inside_all_kinds_of_operations_agree_and_outside_nothing_has_changed(precision, inside):
    before = settings()
    with arithmetic(precision, tune=True):
        assert flags() == (inside, True)
        with arithmetic("fp32"):
            assert flags() == (IEEE, False)
        assert flags() == (inside, True)
    assert settings() == before
    with pytest.raises(KeyError), arithmetic(precision):
        raise KeyError
    assert settings() == before


def test_settings_by_torchs_older_switches_come_back_too(monkeypatch):
    before = settings()
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        with arithmetic("fp32"):
            assert flags()[0] == IEEE
        assert torch.backends.cuda.matmul.allow_tf32 is True
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cuda.matmul.fp32_precision = before[0]
    assert settings() == before


def test_every_command_of_one_python_process_computes_as_its_recipe_says(tmp_path, seen, capsys):
    tiny.write_shards(tmp_path / "train")
    before = settings()
    for precision, inside in (("tf32", TF32), ("fp32", IEEE), ("bf16", TF32)):
        for of in seen.values():
            of.clear()
        train(tiny.recipe(tmp_path, tmp_path / precision, train__steps=2, train__precision=precision))
        steps = [found for found in seen["encode"] if found[2] == (precision == "bf16")]
        assert set(map(str, steps)) == {str((inside, True, precision == "bf16"))}
        assert set(map(str, seen["views"])) == {str((IEEE, False, False))}
        assert settings() == before
    assert "tf32, which on a CPU is fp32" in capsys.readouterr().err
    for precision, inside in (("fp32", IEEE), ("bf16", TF32)):
        for of in seen.values():
            of.clear()
        run = load_run(tmp_path / "tf32")
        said = run.recipe.evaluate.model_copy(update={"precision": precision})
        run = replace(run, recipe=run.recipe.model_copy(update={"evaluate": said}))
        evaluate(run, probes=["knn"], show=False)
        assert set(map(str, seen["encode"])) == {str((inside, False, precision == "bf16"))}
        assert set(map(str, seen["views"])) == {str((IEEE, False, False))}
        assert settings() == before


def test_where_the_number_of_rows_changes_cudnn_is_not_tuned(tmp_path):
    for missing, tuned in (("drop", True), ("mask", False)):
        with trainer.arithmetic_of(tiny.recipe(tmp_path, tmp_path / "run", data__missing=missing)):
            assert torch.backends.cudnn.benchmark is tuned


def test_no_other_precision_is_known(tmp_path):
    with pytest.raises(RecipeError, match=r"train\.precision.*fp32.*tf32.*bf16"):
        parse_recipe(tiny.tables(tmp_path, tmp_path / "run", train__precision="fp16"))
