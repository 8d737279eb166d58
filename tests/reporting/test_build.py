"""The page: complete, self-contained, with escaped texts, whatever a run folder lacks."""

import json
import re

import pytest
import small_runs
import yaml
from html_page import Page
from report_reading import append, read

from mvssl import train
from mvssl.cli.main import main
from mvssl.errors import DataError, OutputError, RecipeError
from mvssl.reporting import report

EVIL = "<script>alert('x')</script>"

ALL = [
    "summary",
    "curves",
    "bounds",
    "views",
    "neighbours",
    "maps",
    "embedding",
    "probes",
    "pace",
    "origin",
    "absent",
]


def test_a_finished_run_has_every_section_and_links_to_them(run):
    page = read(run)
    assert page.sections == ALL
    assert page.all("href") == [f"#{name}" for name in page.sections]
    ids = page.all("id")
    assert len(ids) == len(set(ids))


def test_the_summary_names_objective_data_length_and_state(run):
    text = read(run).text
    for part in (
        "cmc",
        "dim_conv32 for image",
        "train/*.tar, 40 samples",
        "6 of 6 steps",
        "48 samples seen",
        "finished",
    ):
        assert part in text, part


def test_the_page_loads_nothing_and_runs_nothing(run):
    text = report(run).file.read_text()
    page = Page(text)
    assert len(text) < 1_000_000
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "form", "base"} == set()
    assert all(source.startswith("data:image/") for source in page.all("src"))
    assert not re.search(r"url\((?!#)|@import|https?://|\bon\w+=", text)
    assert any("default-src 'none'" in policy for policy in page.all("content"))


def test_every_picture_has_a_text(run):
    pictures = [(tag, attrs) for tag, attrs in read(run).tags if tag in ("img", "svg")]
    assert len(pictures) > 20
    assert all(attrs.get("alt") or attrs.get("aria-label") or attrs.get("aria-hidden") for _, attrs in pictures)


def test_texts_of_a_run_are_escaped(run):
    tables = yaml.safe_load((run / "recipe.yaml").read_text())
    tables["data"]["val"] = f"{EVIL}/*.tar"
    (run / "recipe.yaml").write_text(yaml.safe_dump(tables))
    append(run, {"step": 7, f"bound/{EVIL}": 1.0, f"{EVIL}/x": 2.0})
    (run / "exit.json").write_text(json.dumps({"code": 65, "reason": EVIL}))
    (run / "versions.json").write_text(json.dumps({EVIL: EVIL}))
    (run / "bad.jsonl").write_text(json.dumps({"step": 1, "reason": EVIL}) + "\n")
    (run / "verdict.json").write_text(json.dumps({"verdict": EVIL, "findings": [{"sentence": EVIL, "advice": EVIL}]}))
    (run / "mispaired.jsonl").write_text(json.dumps({"key": EVIL, "score": 0.1}) + "\n")
    renamed = run.rename(run.with_name("a<b>&'\"c"))
    page = read(renamed)
    assert "<script" not in renamed.joinpath("report.html").read_text()
    assert page.text.count(EVIL) > 10
    assert "a<b>&'\"c" in page.text


def test_two_reports_on_one_run_are_the_same_page(run):
    first, second = (re.sub(r"on \d{4}-.*? UTC", "", report(run).file.read_text()) for _ in range(2))
    assert first == second


def test_a_run_before_its_first_line_is_reported(run):
    (run / "metrics.jsonl").unlink()
    (run / "exit.json").unlink()
    page = read(run, samples=0)
    assert "no step has been logged yet" in page.text
    assert page.sections == ["summary", "probes", "origin", "absent"]


def test_every_kind_of_view_is_drawn_and_only_images_have_maps(kinds, tmp_path):
    page = read(kinds, out=tmp_path / "page.html")
    texts = page.all("alt")
    assert {"neighbours", "embedding", "maps", "views"} <= set(page.sections)
    assert "contact sheet: 6 samples, views image, imu, vector" in texts
    assert sum(text.startswith("query") for text in texts) == 3 * 6
    assert any("image, sample 1, components" in text for text in texts)
    assert not any("imu, sample 1, components" in text for text in texts)


def test_no_run_or_an_unwritable_page_is_an_error_with_its_code(run, tmp_path, capsys):
    with pytest.raises(DataError):
        report(tmp_path)
    with pytest.raises(OutputError):
        report(run, run / "recipe.yaml" / "page.html", samples=0)
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").mkdir()
    with pytest.raises(DataError):
        report(run)
    with pytest.raises(SystemExit) as left:
        main(["report", str(tmp_path / "nothing")])
    assert left.value.code == 65
    assert "recipe.yaml" in capsys.readouterr().err


def test_classes_of_other_packages_need_trust(run):
    tables = yaml.safe_load((run / "recipe.yaml").read_text())
    tables["views"]["image"]["name"] = "fault_views:Poison"
    (run / "recipe.yaml").write_text(yaml.safe_dump(tables))
    with pytest.raises(RecipeError, match="--trust fault_views"):
        report(run)


def test_the_command_prints_the_page_and_what_it_lacks(run, capsys):
    main(["report", str(run), "--samples", "0"])
    text = capsys.readouterr().out
    assert f"wrote {run / 'report.html'}" in text
    assert "without Diagnosis: " in text


def test_a_recipe_may_ask_for_a_report_after_the_last_step(tmp_path, capsys):
    small_runs.write_shards(tmp_path / "train")
    recipe = small_runs.recipe(tmp_path, tmp_path / "run", train__steps=1, train__then=["report"])
    train(recipe)
    assert (tmp_path / "run" / "report.html").is_file()
    assert "report.html" in capsys.readouterr().err
