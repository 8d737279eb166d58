"""Whatever a file holds, reading it ends in a result or in an `MvsslError`: no trace, and it comes to an end."""

import contextlib
import hashlib
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_runs
import yaml
from fuzzing import DEEP, ODD, SEED, TOO_DEEP, damaged, documents

from mvssl import train
from mvssl.checkpoints import store
from mvssl.errors import MvsslError
from mvssl.evaluation import evaluate
from mvssl.evaluation.results import comparison
from mvssl.monitoring.check import read_checks
from mvssl.recipe import load_recipe, parse_recipe, to_yaml
from mvssl.recipe.loading import override_all
from mvssl.recipe.yaml_text import parse_yaml
from mvssl.reporting import report
from mvssl.reporting.run_files import read_run_files
from mvssl.runs.line_files import cut_lines_after
from mvssl.runs.load import load_run
from mvssl.runs.versions import other_versions

RECIPES, TEXTS, WORDS, FOLDERS, CHECKPOINTS = 1500, 800, 1000, 20, 100
FILES = (
    "metrics.jsonl",
    "mispaired.jsonl",
    "bad.jsonl",
    "verdict.json",
    "versions.json",
    "exit.json",
    "evaluation.json",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run with everything that a run folder can hold."""
    root = tmp_path_factory.mktemp("fuzz")
    small_runs.write_shards(root / "train")
    run = train(small_runs.recipe(root, root / "run", train__steps=2, train__save_every=1, train__check_every=1)).folder
    evaluate(load_run(run), probes=["knn"], show=False)
    row = {"step": 1, "position": 0, "shard": "a.tar", "key": "0", "column": "image", "reason": "cut", "score": 0.4}
    for name in ("bad.jsonl", "mispaired.jsonl"):
        (run / name).write_text(json.dumps({**row, "views": ["image_0", "image_1"]}) + "\n")
    return run


@pytest.fixture
def run(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def full() -> dict:
    """A recipe that says nearly everything."""
    tables = small_runs.tables(Path("root"), Path("out"))
    tables["data"]["columns"]["image"] |= {"size": [8, 8], "mode": "rgb", "names": ["a", "b"]}
    tables["evaluate"] = {"probes": ["knn"], "options": {"knn": {"k": 3}}, "finetune": {"epochs": 1}, "shots": [1]}
    tables["encoder"] |= {"taps": [0], "init_from": "x"}
    return tables


def test_recipes_of_wrong_types_sizes_and_depths():
    for text in documents(full(), RECIPES):
        with contextlib.suppress(ValueError, MvsslError, RecursionError):
            tables = json.loads(text)
            if isinstance(tables, dict):
                with contextlib.suppress(MvsslError):
                    told = to_yaml(parse_recipe(tables))
                    assert to_yaml(parse_recipe(parse_yaml(told, "again"))) == told


def test_damaged_yaml(tmp_path):
    numbers, file = random.Random(SEED), tmp_path / "recipe.yaml"
    whole = yaml.safe_dump(full()).encode()
    for _ in range(TEXTS):
        file.write_bytes(damaged(whole, numbers))
        with contextlib.suppress(MvsslError):
            load_recipe(file)


@pytest.mark.parametrize(
    "mark", ["[", "{", "- ", "? ", "a: {", "&a ", "'", '"', "a: ", "|", "\t", "%", "!", "\ufeff", "\r", "#", "9"]
)
def test_yaml_that_repeats_one_thing_a_hundred_thousand_times(mark):
    with contextlib.suppress(MvsslError):
        parse_yaml(mark * TOO_DEEP, "x")


def test_overrides():
    numbers = random.Random(SEED)
    keys = ["train.steps", "data.columns.image.size.0", "views", "objective.0.name", "a" * 300, "..", "objective.9"]
    for _ in range(WORDS):
        tables, words = full(), []
        for _ in range(3):
            value = numbers.choice(ODD)
            text = numbers.choice([str(value), "[" * numbers.randint(1, 99), json.dumps({"a": str(value)})])
            words.append(f"{numbers.choice(keys)}={text}")
        with contextlib.suppress(MvsslError):
            override_all(tables, words)
            parse_recipe(tables)


def spoil(file: Path, content: str) -> None:
    file.write_bytes(content.encode(errors="replace"))


def spoiled(file: Path) -> Iterator[str]:
    """What the file could hold; of a file of lines, a document for all of them."""
    text = file.read_text()
    if file.suffix == ".json":
        yield from documents(json.loads(text), FOLDERS)
        return
    for whole in documents([json.loads(line) for line in text.splitlines()], FOLDERS):
        with contextlib.suppress(ValueError):
            lines = json.loads(whole)
            whole = "\n".join(map(json.dumps, lines)) if isinstance(lines, list) else whole
        yield whole


def test_odd_run_folders_are_reported_compared_and_continued(run, capsys):
    for texts in zip(*[list(spoiled(run / name)) for name in FILES], strict=True):
        for name, text in zip(FILES, texts, strict=True):
            spoil(run / name, text)
        report(run, samples=0)
        with contextlib.suppress(MvsslError):
            comparison.show([run, run / "evaluation.json"])
        other_versions(run)
        read_checks(run / "metrics.jsonl")
        cut_lines_after(run / "metrics.jsonl", 1)
    capsys.readouterr()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "text", ["[" * TOO_DEEP, "9" * 5001, "\0", "", "null", '{"a": ' * TOO_DEEP, "[1]", '"x"', "\x1b[31m"]
)
def test_texts_that_are_no_json_are_skipped(run, name, text):
    spoil(run / name, text)
    facts = read_run_files(run)
    assert bool(facts.left_out) == (text != "")
    read_checks(run / "metrics.jsonl")
    cut_lines_after(run / "metrics.jsonl", 1)


def test_checkpoints_whose_state_or_manifest_is_odd(run):
    newest = run / "checkpoints" / "step-00000002"
    state, manifest = (newest / "state.json").read_text(), json.loads((newest / "MANIFEST.json").read_text())
    for number, text in enumerate(documents(json.loads(state), CHECKPOINTS)):
        whole = json.loads(json.dumps(manifest))
        spoil(newest / "state.json", text)
        content = (newest / "state.json").read_bytes()
        whole["state.json"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        spoil(newest / "MANIFEST.json", json.dumps(whole))
        with contextlib.suppress(MvsslError):
            load_run(run, checkpoint=("last", "best", 2)[number % 3])
    spoil(newest / "state.json", state)
    for text in documents(manifest, CHECKPOINTS):
        spoil(newest / "MANIFEST.json", text)
        store.find_damage(newest)
        with contextlib.suppress(MvsslError):
            store.newest(run)
        with contextlib.suppress(MvsslError):
            store.best(run)


def test_the_odd_values_are_as_described():
    assert (len(ODD), DEEP) == (28, 40)
    assert len(list(documents(full(), 10))) == 10
    assert list(documents(full(), 10)) == list(documents(full(), 10))
