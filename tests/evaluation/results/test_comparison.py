"""Comparison of runs: which are averaged, which stay separate, and how columns are described."""

import contextlib
import copy
import json
import random
import statistics
from pathlib import Path

import pytest
import small_runs

from mvssl.cli.main import main
from mvssl.errors import DataError, RecipeError
from mvssl.evaluation.results.comparison import describe_columns, merge_columns, read_columns, show
from mvssl.evaluation.results.records import merge_into, read
from mvssl.recipe import to_yaml

SCORES = {"cmc_0": 0.60, "cmc_1": 0.64, "cmc_2": 0.71}


def record(encoder, value, *, step=6, untrained=None, **protocol):
    """A record of one number, as an evaluation writes it."""
    gain = {} if untrained is None else {"untrained": {"difference": value - untrained, "standard_error": 0.01}}
    return {
        "probe": "knn", "what": "", "metric": "accuracy", "view": "image", "layer": "vector", "encoder": encoder,
        "unit": "%", "higher_is_better": True, "value": value, "standard_error": 0.005, "chance": 0.1, "n_train": 9,
        "n_test": 4, "classes_left_out": 0, "gain": gain, "subject": {"name": "where it was made", "step": step},
        "interval_95": [0, 1], "also": {"macro_f1": 0.5},
        "protocol": {"seed": 0, "k": 20, **protocol},
    }  # fmt: skip


def evaluated(folder: Path, records, **changes) -> Path:
    """A run folder with its recipe and its records."""
    folder.mkdir()
    (folder / "recipe.yaml").write_text(to_yaml(small_runs.recipe(folder, folder, **changes)))
    (folder / "evaluation.json").write_text(json.dumps(records))
    return folder


@pytest.fixture
def seeds(tmp_path):
    """Three runs of one recipe, each with raw pixels and its own untrained encoder beside it."""
    return [
        evaluated(
            tmp_path / name,
            [record("pixels", 0.3), record("untrained", 0.4), record("trained", score, untrained=0.4)],
            train__seed=seed,
        )
        for seed, (name, score) in enumerate(SCORES.items())
    ]


def value(records, encoder, name=None):
    [result] = [r for r in records if r["encoder"] == encoder and name in (None, r["subject"]["name"])]
    return result


def test_runs_that_differ_only_by_seed_are_averaged(seeds):
    columns = read_columns(seeds)
    trained = value(merge_columns(columns), "trained", "cmc")
    assert trained["value"] == pytest.approx(statistics.mean(SCORES.values()))
    assert trained["standard_deviation"] == pytest.approx(statistics.stdev(SCORES.values()))
    assert list(trained["runs"].values()) == list(SCORES.values())
    assert not {"also", "interval_95"} & trained.keys()  # which are of one run
    gains = [score - 0.4 for score in SCORES.values()]
    assert trained["gain"]["untrained"]["standard_deviation"] == pytest.approx(statistics.stdev(gains))
    assert describe_columns(columns) == ["cmc: 3 runs, seeds 0, 1, 2"]


def test_another_recipe_has_its_own_column_and_description(seeds, tmp_path):
    colder = small_runs.tables(tmp_path, tmp_path)["objective"] | {"temperature": 0.2}
    other = evaluated(tmp_path / "cold", [record("trained", 0.5)], objective=colder, optim__lr=0.5)
    columns = read_columns([*seeds, other])
    assert [column.name for column in columns] == ["cmc", "cold"]
    assert (
        describe_columns(columns)[1] == "cold: seed 0; objective.0.temperature: default -> 0.2; optim.lr: 0.001 -> 0.5"
    )
    records = merge_columns(columns)
    assert value(records, "trained", "cold")["standard_deviation"] is None  # one run has no spread over runs
    assert not [r for r in records if r["encoder"] == "untrained"]  # which of the two would it be
    assert value(records, "pixels")["value"] == 0.3  # once, not once a column


def test_keys_that_change_no_weights_make_no_new_column(seeds, tmp_path):
    again = evaluated(tmp_path / "cmc_3", [record("trained", 0.7)], train__seed=3, train__log_every=7, data__workers=1)
    [column] = read_columns([*seeds, again])
    assert [run.seed for run in column.runs] == [0, 1, 2, 3]


def test_single_runs_keep_their_standard_errors(seeds, tmp_path):
    other = evaluated(tmp_path / "cold", [record("trained", 0.5)], optim__lr=0.5)
    for merged in merge_columns(read_columns([seeds[0], other])):
        assert merged["standard_error"] == 0.005


def test_numbers_of_other_protocols_are_not_averaged(tmp_path):
    one = evaluated(tmp_path / "a_0", [record("trained", 0.5)])
    two = evaluated(tmp_path / "a_1", [record("trained", 0.7, k=5)], train__seed=1)
    assert [r["value"] for r in merge_columns(read_columns([one, two]))] == [0.5, 0.7]


def test_the_newest_measured_step_of_a_run_counts(tmp_path):
    run = evaluated(tmp_path / "run", [record("trained", 0.5, step=3), record("trained", 0.6)])
    assert [r["value"] for r in merge_columns(read_columns([run]))] == [0.6]


def test_a_file_of_records_gives_the_subjects_that_it_names(seeds, tmp_path):
    file = tmp_path / "peer.json"
    peer = {**record("trained", 0.2), "subject": {"name": "timm:resnet18", "step": None}}
    file.write_text(json.dumps([peer]))
    columns = read_columns([seeds[0], file])
    assert describe_columns(columns) == ["cmc_0: seed 0", "timm:resnet18: not a run"]


def test_a_place_without_records_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"evaluation\.json .*`mvssl evaluate` writes"):
        read_columns([tmp_path])
    (tmp_path / "evaluation.json").write_text("[]")
    with pytest.raises(DataError, match=r"evaluation\.json holds no records"):
        read_columns([tmp_path])


def test_the_command_prints_the_table_and_writes_it(seeds, tmp_path, capsys):
    file = tmp_path / "both.json"
    main(["compare", *map(str, seeds), "--json", str(file)])
    out = capsys.readouterr().out
    for shown in ("65.0 ± 5.6", "± standard deviation over runs", "seeds 0, 1, 2"):
        assert shown in out
    assert value(json.loads(file.read_text()), "trained")["value"] == pytest.approx(0.65)


@pytest.mark.parametrize(
    "odd",
    [
        3, None, {"value": 1}, {**record("trained", 0.5), "value": None}, {**record("trained", 0.5), "value": "0.5"},
        {**record("trained", 0.5), "protocol": []}, {**record("trained", 0.5), "subject": "x"},
        {**record("trained", 0.5), "probe": 3}, {**record("trained", 0.5), "protocol": {"data": {"train": 1}}},
    ],
)  # fmt: skip
def test_values_that_are_no_records_are_ignored(tmp_path, odd):
    (tmp_path / "x.json").write_text(json.dumps([odd, record("trained", 0.6)]))
    assert [r["value"] for r in read(tmp_path / "x.json")] == [0.6]
    assert [r["value"] for r in merge_into(tmp_path / "x.json", [])] == [0.6]


def places(value, before=()):
    """Yield the path to every value inside JSON."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, value in inside:
        yield (*before, key)
        yield from places(value, (*before, key))


def changed(records, draw: random.Random):
    """Return records in which up to three values are missing or have another type."""
    made = copy.deepcopy(records)
    for _ in range(draw.randint(1, 3)):
        *path, last = draw.choice(list(places(made)))
        at = made
        for key in path:
            at = at[key]
        if draw.random() < 0.3 and isinstance(at, dict):
            del at[last]
        else:
            at[last] = draw.choice([None, 0, -1, 10**30, float("nan"), 1e308, "", [], {}, [1], {"a": 1}, True, [[[]]]])
    return made


@pytest.mark.parametrize("seed", range(4))
def test_damaged_records_are_shown_or_refused_with_a_message(tmp_path, seed, capsys):
    draw = random.Random(seed)
    whole = [record("pixels", 0.3), record("untrained", 0.4), record("trained", 0.5, untrained=0.4)]
    for _ in range(25):
        (tmp_path / "x.json").write_text(json.dumps(changed(whole, draw)))
        assert len(merge_into(tmp_path / "x.json", whole)) >= len(whole)
        with contextlib.suppress(DataError, RecipeError):
            show([tmp_path / "x.json"])
    assert capsys.readouterr().out
