"""A file appears whole or not at all, in pieces or at once the same, and holds numbers or says why not."""

import os

import numpy as np
import paired_runs
import pytest
import small_runs
import torch
from full_disk import files_of_at_most
from pyarrow import parquet

from mvssl.embedding import embed, formats, new_output, table
from mvssl.errors import DataError, OutputError, RecipeError, StorageError

NAMES = "a.npz", "a.parquet", "a"


@pytest.fixture
def loaded(tmp_path):
    small_runs.write_shards(tmp_path / "data" / "train")
    return paired_runs.make_run(tmp_path / "data", tmp_path / "run")


def blocks_of_seven(rows):
    return (slice(i, min(i + 7, 40)) for i in range(0, 40, 7))


def whole(out):
    """The bytes of a file, or of all files of a folder."""
    files = sorted(out.iterdir()) if out.is_dir() else [out]
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize("name", ["a.npz", "a"])
def test_several_blocks_give_the_bytes_of_a_single_block(loaded, tmp_path, monkeypatch, name):
    embed(loaded, tmp_path / "once" / name)
    monkeypatch.setattr(table.EmbeddingTable, "blocks", blocks_of_seven)
    embed(loaded, tmp_path / "pieces" / name)
    assert list(whole(tmp_path / "once" / name).values()) == list(whole(tmp_path / "pieces" / name).values())


def test_a_parquet_of_many_row_groups_holds_the_same_table(loaded, tmp_path, monkeypatch):
    embed(loaded, tmp_path / "once.parquet")
    monkeypatch.setattr(table.EmbeddingTable, "blocks", blocks_of_seven)
    embed(loaded, tmp_path / "pieces.parquet")
    assert parquet.ParquetFile(tmp_path / "pieces.parquet").metadata.num_row_groups == 6
    one, other = (parquet.read_table(tmp_path / f"{name}.parquet") for name in ("once", "pieces"))
    assert one.to_pydict() == other.to_pydict()
    assert str(one.schema.field("rgb").type) == "fixed_size_list<element: float>[8]"
    assert b"run" in one.schema.metadata[b"mvssl"]


def test_blocks_fit_into_memory_for_any_width():
    rows = table.EmbeddingTable.__new__(table.EmbeddingTable)
    rows.rows, rows.widths = np.arange(10_000_000), {"a": 2048, "b": 6144}
    blocks = list(rows.blocks())
    assert sum(block.stop - block.start for block in blocks) == 10_000_000
    assert max(block.stop - block.start for block in blocks) * 4 * 8192 <= table.BLOCK


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_write_that_stops_half_way_leaves_nothing(loaded, tmp_path, monkeypatch, name, error):
    real, calls = table.EmbeddingTable.read, []

    def stopping(self, view, block):
        calls.append(view)
        if len(calls) > 1:
            raise error
        return real(self, view, block)

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(table.EmbeddingTable, "read", stopping)
    with pytest.raises(StorageError if isinstance(error, OSError) else KeyboardInterrupt) as raised:
        embed(loaded, tmp_path / "out" / name)
    assert list((tmp_path / "out").iterdir()) == []
    assert isinstance(error, KeyboardInterrupt) or "No space left" in str(raised.value)


@pytest.mark.parametrize("size", [0, 100, 500, 2000])
@pytest.mark.parametrize("name", ["x.npz", "x.parquet", "x"])
def test_a_disk_that_is_full_at_any_byte_leaves_no_files(loaded, tmp_path, name, size):
    embed(loaded, tmp_path / "first.npz")  # what is computed lies in the cache
    there = sorted(place.name for place in tmp_path.iterdir())
    with files_of_at_most(size), pytest.raises(StorageError, match=rf"{name} cannot be written.*nothing was kept"):
        embed(loaded, tmp_path / name)
    assert sorted(place.name for place in tmp_path.iterdir()) == there


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_appears_during_writing_is_kept(loaded, tmp_path, monkeypatch, name, links):
    real = formats.FORMATS[(tmp_path / name).suffix]

    def slow(*given):
        real.write(*given)
        if (tmp_path / name).suffix:
            (tmp_path / name).write_text("theirs")
        else:
            (tmp_path / name / "theirs").mkdir(parents=True)

    def no_links(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setitem(formats.FORMATS, (tmp_path / name).suffix, real._replace(write=slow))
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(OutputError, match="exists already"):
        embed(loaded, tmp_path / name)
    kept = tmp_path / name
    assert kept.read_text() == "theirs" if kept.suffix else [path.name for path in kept.iterdir()] == ["theirs"]
    assert not list(tmp_path.glob(".a*"))


def test_without_links_a_file_is_renamed(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "link", lambda *_: os.stat(tmp_path / "nowhere"))
    with new_output.write_whole(tmp_path / "a.npz") as aside:
        aside.write_text("whole")
        assert not (tmp_path / "a.npz").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_an_empty_folder_is_filled_and_an_impossible_one_refused(loaded, tmp_path):
    (tmp_path / "a").mkdir()
    embed(loaded, tmp_path / "a")
    assert len(whole(tmp_path / "a")) == 4
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be made"):
        embed(loaded, tmp_path / "file" / "a.npz")


@pytest.mark.parametrize("name", NAMES)
def test_features_that_are_not_finite_are_refused_with_the_sample(loaded, tmp_path, name):
    with torch.no_grad():
        for parameter in loaded.model.encoder_of("Depth").parameters():
            parameter.mul_(40)
    with pytest.raises(DataError, match=r"view Depth, sample 000000\d\d of .*largest number of --half is 65,504"):
        embed(loaded, tmp_path / name, half=True)
    assert embed(loaded, tmp_path / name).dtype == "float32"
    with torch.no_grad():
        next(loaded.model.encoder_of("rgb").parameters()).fill_(torch.nan)
    with pytest.raises(DataError, match=r"view rgb, sample 00000000 of .*NaN or infinite; the encoder has diverged"):
        embed(loaded, tmp_path / f"nan_{name}")
    assert not (tmp_path / f"nan_{name}").exists()


def test_names_of_views_that_collide_in_a_file_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="Label"):
        formats.choose_format(tmp_path / "a.npz", ["rgb", "Label"])
    with pytest.raises(RecipeError, match="of a, A collide"):
        formats.choose_format(tmp_path / "folder", ["a", "A"])
    assert formats.choose_format(tmp_path / "a.npz", ["a", "A"]).write is formats.write_npz
