"""Files are written completely or not at all, and other kinds of files are never replaced."""

import os
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from full_disk import files_of_at_most
from matplotlib.figure import Figure
from PIL import Image
from pyarrow import parquet
from safetensors.torch import save_file

from mvssl.bench import bench_reader, bench_train, bench_views
from mvssl.bench.rivals.accuracy import draw_accuracy
from mvssl.errors import OutputError, StorageError
from mvssl.files import (
    PICTURE,
    RECORDS,
    check_output,
    open_atomic,
    put_new,
    write_errors,
    write_file,
    write_picture,
    written_beside,
)


@pytest.fixture
def pipe(tmp_path):
    """Stands for all that is no plain file; /dev/null itself would be lost where these tests fail."""
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def test_pipes_devices_and_folders_are_refused_and_kept(tmp_path, pipe):
    (tmp_path / "link").symlink_to(pipe)
    for place, said in ((pipe, "pipe"), (tmp_path / "link", "pipe"), (tmp_path, "a folder")):
        with pytest.raises(OutputError, match=f"it is .*{said}.*--json FILE"):
            check_output(place, RECORDS)
        with pytest.raises(StorageError, match=f"it is .*{said}"):
            write_file(place, "[]")
        with pytest.raises(OutputError, match=f"it is .*{said}"):
            write_picture(Figure(), place)
    assert pipe.is_fifo()
    with pytest.raises(OutputError, match="/dev/null cannot be written: it is a device"):
        check_output("/dev/null", RECORDS)
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


def test_only_an_older_file_of_the_kind_or_an_empty_file_is_replaced(tmp_path):
    for kind, content, allowed in (
        (RECORDS, b'\n[{"probe"', True), (RECORDS, b"", True), (RECORDS, b"data:\n", False), (RECORDS, b"{}", False),
        (PICTURE, b"\x89PNG\r\n", True), (PICTURE, b"data:\n", False), (PICTURE, b"\xff\xd8\xff", False),
    ):  # fmt: skip
        (tmp_path / "x").write_bytes(content)
        if allowed:
            check_output(tmp_path / "x", kind)
        else:
            with pytest.raises(OutputError, match=f"holds no {kind.what}"):
                check_output(tmp_path / "x", kind)
        assert (tmp_path / "x").read_bytes() == content


def test_folders_are_made_links_followed_and_long_names_written(tmp_path):
    check_output(tmp_path / "a" / "b" / "x.json", RECORDS)
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "link").symlink_to("x")
    write_file(tmp_path / "link", "one")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "x").read_text() == "one"
    write_file(tmp_path / ("n" * 255), "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "link", "n" * 255, "x"]


def test_a_picture_is_a_png_for_any_suffix(tmp_path):
    write_picture(Figure(), tmp_path / "a.pdf")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"\x89PNG")


def test_a_benchmark_checks_its_output_file_first(pipe):
    for bench in (lambda **given: bench_train(None, **given), lambda **given: bench_reader(None, **given), bench_views):
        with pytest.raises(OutputError, match="--json FILE"):
            bench(json_file=pipe)


def test_a_race_picture_that_cannot_be_written_is_an_output_error(tmp_path):
    found = {"curves": {"ours": [{"minutes": 1.0, "accuracy": 0.5}]}, "minutes": 1.0}
    with pytest.raises(OutputError, match=r"nowhere/race\.png cannot be written: No such file"):
        draw_accuracy(found, tmp_path / "nowhere" / "race.png")


def test_a_full_disk_is_a_storage_error_whatever_the_failure_class(tmp_path):
    write_file(tmp_path / "a.json", "[]")
    with files_of_at_most(10), pytest.raises(StorageError, match=r"a\.json cannot be written: File too large; choose"):
        write_file(tmp_path / "a.json", "[" + 20 * " " + "]", OutputError, "; choose another")
    with files_of_at_most(10), pytest.raises(StorageError, match=r"picture\.png cannot be written"):
        write_picture(Figure(), tmp_path / "picture.png")
    assert (tmp_path / "a.json").read_text() == "[]"
    assert os.listdir(tmp_path) == ["a.json"]


def test_errors_of_writing_libraries_are_storage_errors_others_pass(tmp_path):
    for write in (
        lambda file: save_file({"x": torch.zeros(99)}, file),
        lambda file: parquet.write_table(pyarrow.table({"x": range(99)}), file),
        lambda file: np.save(file, np.zeros(99)),
        lambda file: Image.effect_noise((50, 50), 99).save(file),
    ):
        with files_of_at_most(100), pytest.raises(StorageError, match=r"x\.png cannot be written"):  # noqa: SIM117
            with write_errors(tmp_path / "x.png"):
                write(tmp_path / "x.png")
    with pytest.raises(ZeroDivisionError), write_errors("x"):
        print(1 / 0)
    with pytest.raises(OutputError, match="x is no place"), write_errors("x"):
        raise OutputError("x is no place")


def test_a_new_path_replaces_an_empty_folder_and_nothing_else(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "old").touch()
    (tmp_path / "file").write_text("old")
    for name in ("filled", "file"):
        for make in (Path.mkdir, Path.touch):
            with pytest.raises(FileExistsError), written_beside(tmp_path / name, put=put_new) as beside:
                make(beside)
    for name in ("empty", "new"):
        with written_beside(tmp_path / name, put=put_new) as beside:
            beside.mkdir()
            (beside / "inside").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "empty", "file", "filled", "inside", "inside", "new", "old",
    ]  # fmt: skip


def test_a_folder_replaces_a_folder_and_a_failure_keeps_the_old_one(tmp_path):
    place = tmp_path / "place"
    for content in ("first", "second"):
        with written_beside(place) as beside:
            beside.mkdir()
            (beside / content).touch()
    with pytest.raises(FileNotFoundError), written_beside(place) as beside:
        beside.joinpath("missing", "file").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["place", "second"]


def test_an_atomic_file_appears_at_the_end_of_the_block(tmp_path):
    with open_atomic(tmp_path / "file") as opened:
        opened.write(b"new")
        assert not (tmp_path / "file").exists()
    assert (tmp_path / "file").read_bytes() == b"new"
