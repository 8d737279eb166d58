"""A file is there whole or not at all, and never in place of what is no such file."""

import os

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
from mvssl.bench.rivals import draw_curves
from mvssl.errors import OutputError, StorageError
from mvssl.files import PICTURE, RECORDS, check_output, write_errors, write_file, write_picture


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
        draw_curves(found, tmp_path / "nowhere" / "race.png")


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
