"""The page: complete, self-contained, with escaped texts, and with whatever a run folder lacks or has damaged."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import small_runs
import torch
import yaml

from mvssl import train
from mvssl.checkpoints import store
from mvssl.cli.main import main
from mvssl.errors import DataError, OutputError, RecipeError
from mvssl.monitoring.diagnosis import Evidence, FeatureStatistics, diagnose
from mvssl.reporting import report
from mvssl.runs.load import load_run

VOID = {"meta", "br", "hr", "img"}
EVIL = "<script>alert('x')</script>"


class Page(HTMLParser):
    """Reads a page strictly: every tag is closed where it should be."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, key: str) -> list[str]:
        return [str(attrs[key]) for _, attrs in self.tags if key in attrs]

    @property
    def sections(self) -> list[str]:
        return [str(attrs["id"]) for tag, attrs in self.tags if tag == "section" and "id" in attrs]


def read(run: Path, **options) -> Page:
    return Page(report(run, **options).file.read_text())


def append(run: Path, *lines: object) -> None:
    with open(run / "metrics.jsonl", "a") as file:
        file.writelines(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)


def find_reason(run: Path, title: str) -> str:
    return next(absent.why for absent in report(run, samples=0).absent if absent.title == title)


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


def test_damage_is_left_out_and_reported_on_page_and_terminal(run, capsys):
    append(
        run,
        "not json",
        {"step": "six", "loss": 1},
        {"step": 7, "loss": "high"},
        '{"step": 8, "loss": NaN}',
        '{"step": 9',
    )
    for name, text in (("verdict.json", '{"verdict": "hea'), ("evaluation.json", "[1, {}]"), ("exit.json", "[]")):
        (run / name).write_text(text)
    lines = len((run / "metrics.jsonl").read_text().splitlines())
    expected = [
        f"metrics.jsonl: line {lines - 4}, {lines}, no JSON object",
        "evaluation.json: 2 of 2 records, which lack what a table needs",
        "verdict.json: damaged, or of another version",
        "exit.json: damaged, or of another version",
    ]
    text = read(run).text
    assert "; ".join(expected) in text
    assert "6 of 6 steps" in text
    main(["report", str(run), "--samples", "0"])
    assert [line for line in capsys.readouterr().out.splitlines() if "left out:" in line] == [
        f"  left out: {damage}" for damage in expected
    ]


def test_a_file_over_the_limit_is_cut_and_reported(run, monkeypatch):
    monkeypatch.setattr("mvssl.runs.line_files.MAX_BYTES", 100)
    assert any(damage.startswith("metrics.jsonl: ") for damage in report(run, samples=0).left_out)


def test_a_run_in_training_is_reported_with_what_there_is(run):
    (run / "exit.json").unlink()
    (run / "evaluation.json").unlink()
    for step in (run / "checkpoints").iterdir():
        step.rename(step.with_name(f".writing-{step.name}"))
    append(run, '{"step": 12, "lo')
    page = read(run)
    assert "in training" in page.text
    assert "holds no checkpoint yet" in page.text
    assert set(page.sections) >= {"summary", "curves", "bounds", "pace", "origin"}
    assert not {"views", "neighbours", "probes"} & set(page.sections)


def test_a_run_before_its_first_line_is_reported(run):
    (run / "metrics.jsonl").unlink()
    (run / "exit.json").unlink()
    page = read(run, samples=0)
    assert "no step has been logged yet" in page.text
    assert page.sections == ["summary", "probes", "origin", "absent"]


def test_each_absent_section_is_named_with_a_reason(run, monkeypatch):
    (run / "evaluation.json").unlink()
    tables = yaml.safe_load((run / "recipe.yaml").read_text())
    tables["data"]["root"] = str(run / "nowhere")
    (run / "recipe.yaml").write_text(yaml.safe_dump(tables))
    written = report(run)
    ways = {part.title: part.why for part in written.absent}
    assert "mvssl evaluate" in ways["Probes"]
    assert all("nowhere" in ways[title] for title in ("Views", "Nearest neighbours", "Local maps"))
    text = Page(written.file.read_text()).text
    assert all(f"{why}" in text for why in ways.values())


def test_without_samples_no_checkpoint_and_no_shard_is_opened(run, monkeypatch):
    monkeypatch.setattr("mvssl.reporting.inputs.encode_samples", None)
    monkeypatch.setattr("mvssl.reporting.inputs.open_shards", None)
    ways = {part.title: part.why for part in report(run, samples=0).absent}
    assert "--samples" in ways["Nearest neighbours"]


def test_every_kind_of_view_is_drawn_and_only_images_have_maps(kinds, tmp_path):
    page = read(kinds, out=tmp_path / "page.html")
    texts = page.all("alt")
    assert {"neighbours", "embedding", "maps", "views"} <= set(page.sections)
    assert "contact sheet: 6 samples, views image, imu, vector" in texts
    assert sum(text.startswith("query") for text in texts) == 3 * 6
    assert any("image, sample 1, components" in text for text in texts)
    assert not any("imu, sample 1, components" in text for text in texts)


def test_neighbours_have_the_names_of_their_classes(run):
    page = read(run)
    assert any("label bee" in text for text in page.all("title"))
    assert any("label <i>cat</i>" in text for text in page.all("title"))


def test_the_diagnosis_is_shown_with_its_numbers_and_advice(run):
    shape = FeatureStatistics(rank=1.1, spread=0.001, idle=0.0, width=8, samples=40)
    held = {"bound/a-b": 1.95, "ceiling/a-b": 2.0}
    found = diagnose(Evidence(step=6, early=1, held=held, features={"image": shape}))
    (run / "verdict.json").write_text(json.dumps(found.record()))
    page = read(run, samples=0)
    assert "banner ill" in page.all("class")
    assert "! Collapsed , at step 6" in page.text
    for finding in found.findings:
        assert finding.sentence in page.text
        assert f"Try: {finding.advice}" in page.text
        assert f"threshold {finding.threshold:.4g}" in page.text
    well = diagnose(Evidence(step=6, early=1, held={"bound/a-b": 1.0, "ceiling/a-b": 2.0}))
    (run / "verdict.json").write_text(json.dumps(well.record()))
    assert "banner well" in read(run, samples=0).all("class")


@pytest.mark.parametrize("term", ["", "mib/"])
def test_held_out_values_and_the_plane_are_shown_where_they_exist(run, term):
    for step in (3, 6):
        values = {"val/loss": 2.0 + step, "val/bound/image_0-image_1": 0.5, "val/ceiling/image_0-image_1": 2.0}
        values |= {"val/knn/image": 0.4, "val/rank/image": 3.0, f"{term}beta": 0.1, f"{term}loss": 1.0}
        append(run, {"step": step, **values, f"val/{term}plane/xz": 2.0, f"val/{term}plane/zy": 1.0 + step})
    page = read(run, samples=0)
    assert "plane" in page.sections
    assert "loss 8 at step 6; lowest 5 at step 3" in page.text
    charts = page.all("aria-label")
    beta = f"{term}beta over step" if term else "Beta over step"
    for title in (
        "Loss over step",
        "image_0-image_1 in nats",
        "kNN, held out in accuracy",
        "Information plane",
        beta,
    ):
        assert any(chart.startswith(title) for chart in charts), title
    assert any("step 6, beta 0.1" in word for word in page.words)


def test_mispaired_samples_are_listed_and_drawn(run):
    shards = ["/old/home/train/000001.tar", "train/000000.tar", "train/000001.tar"]
    keys = ["00000020", "00000005", "00000006"]
    rows = [{"shard": s, "key": k, "views": "image-depth", "score": 0.4} for s, k in zip(shards, keys, strict=True)]
    (run / "mispaired.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    page = read(run)
    assert "image-depth" in page.text
    assert "/old/home" not in page.text  # the folder is another machine's
    drawn = [key for key in keys if f"image of sample {key}" in page.all("alt")]
    assert drawn == keys[:2]  # the third is in another shard
    assert "mispaired" in read(run, samples=0).sections
    (run / "mispaired.jsonl").write_text("")
    before = find_reason(run, "Mispaired samples")
    append(run, {"step": 6, "mispaired": 0})
    assert find_reason(run, "Mispaired samples") != before
    (run / "mispaired.jsonl").unlink()
    assert "mispaired.jsonl" in find_reason(run, "Mispaired samples")


def test_a_named_checkpoint_is_used_or_refused(run):
    assert "layer vector, step 3)" in read(run, checkpoint="3").text
    assert "layer vector, step 6, the newest checkpoint that verifies)" in read(run).text
    for wrong, error in (("77", DataError), ("best", DataError), ("newest", RecipeError)):
        with pytest.raises(error):
            report(run, checkpoint=wrong)


def test_records_of_another_protocol_are_in_another_table(run):
    records = json.loads((run / "evaluation.json").read_text())
    other = [{**r, "protocol": {**r["protocol"], "seed": 9}} for r in records]
    (run / "evaluation.json").write_text(json.dumps([*records, *other, {"probe": "knn", "value": 1}, "nonsense"]))
    page = read(run, samples=0)
    assert page.all("class").count("probe") == 2
    assert "seed: 0 -> 9" in page.text
    value = next(r["value"] for r in records if r["encoder"] == "trained")
    assert f"{100 * value:.1f}" in page.text


def test_a_probe_with_many_rows_is_folded_and_units_are_named(run):
    records = json.loads((run / "evaluation.json").read_text())
    many = [{**r, "probe": "retrieval", "what": f"direction {k}"} for r in records for k in range(20)]
    nats = [{**r, "probe": "information", "metric": "nwj", "unit": "nats", "value": 3.0} for r in records]
    (run / "evaluation.json").write_text(json.dumps([*records, *many, *nats]))
    text = read(run, samples=0).text
    assert "retrieval: 20 rows" in text
    assert "knn, accuracy (%)" in text
    assert "information, nwj (nats)" in text


def test_the_recipe_is_shown_without_folders_of_this_machine(run):
    root = yaml.safe_load((run / "recipe.yaml").read_text())["data"]["root"]
    assert root not in read(run, samples=0).text


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


def test_a_diverged_encoder_is_reported_without_its_samples(run):
    loaded = load_run(run)
    with torch.no_grad():
        next(loaded.model.parameters()).fill_(torch.nan)
    state = store.load_state(loaded.checkpoint)
    optimizer = torch.optim.AdamW(loaded.model.parameters())
    store.save_checkpoint(run, 9, loaded.model, optimizer, {**state.model_dump(), "step": 9}, keep=3)
    made = report(run)
    why = {absent.title: absent.why for absent in made.absent}
    assert "sample 00000000 of" in why["Nearest neighbours"]
    assert "diverged" in why["Nearest neighbours"]
