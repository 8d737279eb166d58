"""Which checkpoint and shards a report opens, and what it says without them."""

import pytest
import torch
import yaml
from html_page import Page
from report_reading import append, read

from mvssl.checkpoints import store
from mvssl.errors import DataError, RecipeError
from mvssl.reporting import report
from mvssl.runs.load import load_run


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


def test_a_named_checkpoint_is_used_or_refused(run):
    assert "layer vector, step 3)" in read(run, checkpoint="3").text
    assert "layer vector, step 6, the newest checkpoint that verifies)" in read(run).text
    for wrong, error in (("77", DataError), ("best", DataError), ("newest", RecipeError)):
        with pytest.raises(error):
            report(run, checkpoint=wrong)


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
