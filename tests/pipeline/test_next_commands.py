"""Each command that a run prints for the user is run here and ends with 0."""

import contextlib
import shlex

import pytest
import small_runs

from mvssl import train
from mvssl.cli.main import main
from mvssl.pipeline.next_commands import next_commands
from mvssl.recipe import parse_recipe
from mvssl.recipe.yaml_text import parse_yaml, shell_override
from mvssl.runs.load import load_run
from mvssl.text import shell_word

SMALL = {"name": "dim_conv32", "options": {"img_size": 8, "channels": [8, 8, 8], "hidden": 16, "code": 8}}
SENSORS = {
    "data": {"columns": {"image": {"field": "png"}, "depth": {"field": "depth.png"}}},
    "views": {"image": {"from": "image"}, "depth": {"from": "depth"}},
    "encoder": {"image": SMALL, "depth": SMALL},
}
CASES = {
    "labels": ({}, "evaluate"),
    "no labels": ({"data": {"label": None}}, "embed"),
    "no held-out shards": ({"data": {"val": []}}, "embed"),
    "labels that are pictures": ({"data": {"label": {"field": "depth.png"}}}, "report"),
    "evaluated, two sensors": ({**SENSORS, "train": {"then": ["evaluate"]}}, "evaluate RUN --layer head"),
    "two sensors without labels": (
        {**SENSORS, "data": {**SENSORS["data"], "label": None}},
        "evaluate RUN --probe retrieval --layer head",
    ),
    "exported, its page written": ({"train": {"then": ["export", "report"]}}, "evaluate"),
    "an objective of another package": ({"objective": {"name": "fault_views:Own"}}, "evaluate RUN --trust fault_views"),
    "an objective of another package, no labels": (
        {"objective": {"name": "fault_views:Own"}, "data": {"label": None}},
        "embed RUN --out RUN/features.npz --trust fault_views",
    ),
}


NAMES = ["it's a run", "--run", "~run", "$HOME", 'a"b']
NAMED = [(case, name) for case in ("two sensors without labels", "exported, its page written") for name in NAMES]


@pytest.mark.parametrize(("case", "name"), [*((case, "run") for case in CASES), *NAMED])
def test_every_next_command_ends_with_0(case, name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_runs.write_shards(tmp_path / "train")
    changes, first = CASES[case]
    tables = small_runs.tables(tmp_path, f"./{name}", train__steps=1, evaluate={"probes": ["knn"]})
    for table, values in changes.items():
        tables[table] = values if table in ("views", "encoder", "objective") else {**tables[table], **values}
    recipe = parse_recipe(tables)
    train(recipe)
    lines = [line[2:] for line in capsys.readouterr().err.partition("next:\n")[2].splitlines()]
    commands = [shlex.split(line) for line in lines]
    folder = f"./{name}" if name[0] in "-~" else name
    assert lines[0].startswith(f"mvssl {first.replace('RUN', shell_word(name))}")
    assert commands[0][2] == folder
    for program, *words in commands:
        with contextlib.ExitStack() as stack:
            if program == "mvssl":
                main(words)
            else:
                assert (program, words[0]) == ("python", "-c")
                stack.enter_context(contextlib.redirect_stdout(None))
                exec(words[1], {})
    assert ["report" in words[1:2] for _, *words in commands].count(True) == 0 or "report" not in recipe.train.then


def test_tensorboard_is_named_only_where_it_ran_and_is_installed(tmp_path, monkeypatch):
    small_runs.write_shards(tmp_path / "train")
    recipe = small_runs.recipe(tmp_path, tmp_path / "run", train__steps=1, train__trackers=["tensorboard"])
    run = load_run(train(recipe).folder)

    def boards():
        return [line for line in next_commands(run, [], False) if line.startswith("tensorboard")]

    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    assert boards() == [f"tensorboard --logdir {tmp_path}/run"]
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert boards() == []
    monkeypatch.undo()
    (tmp_path / "run" / "trackers").rename(tmp_path / "run" / "other")
    assert boards() == []


def test_no_command_is_offered_that_would_fail(tmp_path):
    small_runs.write_shards(tmp_path / "train")
    run = load_run(train(small_runs.recipe(tmp_path, tmp_path / "run", train__steps=1)).folder)
    (tmp_path / "run" / "backbone").write_text("a file of the user")
    assert not any("export" in line for line in next_commands(run, [], False))
    assert any(line.startswith("mvssl evaluate") for line in next_commands(run, [], False))
    assert not any(line.startswith("mvssl evaluate") for line in next_commands(run, [], True))  # it has just failed


@pytest.mark.parametrize("text", ["runs/a", "a b", "1.5", "true", "a: b", "a #b", "*x", "it's", 'say "x"', "~/x", "no"])
def test_shell_override_reads_back_as_the_same_text(text):
    (word,) = shlex.split(shell_override("train.out", text))
    assert word.startswith("train.out=")
    assert parse_yaml(word.partition("=")[2], "x") == text
