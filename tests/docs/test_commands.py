"""The commands of the documents: they parse, their recipes load with the overrides, and the quickstart runs."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from pages import PAGES, ROOT, blocks, commands, name

from mvssl.cli.commands import app
from mvssl.cli.main import main
from mvssl.recipe import load_recipe
from mvssl.recipe.schema import Data, EncoderConfig, Evaluate, ObjectiveConfig, Optim, Train, ViewConfig
from mvssl.recipe.yaml_text import parse_yaml

TABLES = {"data": Data, "optim": Optim, "train": Train, "evaluate": Evaluate}
BY_NAME = {"views": ViewConfig, "encoder": EncoderConfig, "objective": ObjectiveConfig}


def words_of(command: str) -> list[list[str]]:
    """Return the arguments of each `mvssl` in a command line; those of a loop or a chain are several."""
    parts = re.split(r"\s*(?:;|&&|\bdo\b|\|)\s*", re.sub(r"'[^']*'", lambda m: m[0].replace(";", "\0"), command))
    found = []
    for part in parts:
        words = shlex.split(part.replace("\0", ";").replace("$s", "0"), comments=True)
        if "mvssl" in words and words[0] in ("mvssl", "accelerate"):
            found.append(words[words.index("mvssl") + 1 :])
    return found


CASES = [(page, words) for page in PAGES for command in commands(page) for words in words_of(command)]


@pytest.mark.parametrize(("page", "words"), CASES, ids=lambda case: name(case) if isinstance(case, Path) else None)
def test_a_command_of_the_documents_is_accepted(page: Path, words: list[str], monkeypatch):
    monkeypatch.chdir(ROOT)
    verb, *arguments = words
    if verb == "--version":
        return
    command = typer.main.get_command(app).commands[verb]
    if verb == "bench":
        command = command.commands[arguments.pop(0)]
    given = command.make_context(verb, list(arguments)).params
    recipe = given.get("recipe")
    if verb in ("train", "views", "bench") and recipe and Path(recipe).suffix == ".yaml" and "$" not in str(arguments):
        assert load_recipe(recipe, given["overrides"] or [])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_yaml_of_the_documents_fits_the_schema(page: Path):
    for block in blocks(page, "yaml"):
        for table, keys in parse_yaml(block, name(page)).items():
            if table in TABLES:
                TABLES[table].model_validate(keys)
            else:
                several = keys if isinstance(keys, list) else [keys] if "name" in keys else keys.values()
                for one in several:
                    BY_NAME[table].model_validate(one)


def test_the_quickstart_runs_step_by_step(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("MVSSL_DATA", raising=False)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    steps = next(block for block in blocks(ROOT / "docs/start/quickstart.md", "console") if "pack digits" in block)
    verbs = []
    for line in steps.splitlines():
        words = shlex.split(line.removeprefix("$ mvssl "), comments=True)
        verbs.append(words[0])
        if words[0] == "train":
            words += ["train.steps=2", "data.workers=0", "train.check_every=0"]
        if words[0] == "report":
            words += ["--samples", "50"]
        if words[0] == "evaluate":
            words += ["--probe", "knn"]
        main(words)
    assert verbs == ["pack", "verify", "views", "train", "evaluate", "report", "export", "embed"]
    assert (tmp_path / "runs/first/report.html").exists()
    assert (tmp_path / "digits.npz").exists()
