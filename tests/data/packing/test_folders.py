"""Every file of a folder is packed or listed; a file that would be kept in part is refused."""

import os
import signal
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_making import image_bytes, npy, pixels, put

from mvssl.data.packing import pack
from mvssl.errors import DataError, RecipeError


def packed_names(out: Path) -> set[str]:
    return {
        Path(line.split("\t")[1]).name for file in out.glob("*/names.tsv") for line in file.read_text().splitlines()
    }


def reasons(packed) -> dict[str, str]:
    return {one.path: one.reason for one in packed.left_out}


def test_every_file_is_either_packed_or_listed_as_left_out(tmp_path):
    src = put(tmp_path / "src", "a/1.png", "a/2.png", "b/3.JPG", "b/deep/4.png")
    put(src, ".DS_Store", "a/.ipynb_checkpoints/1-checkpoint.png", "__MACOSX/a/._1.png", "above.png")
    put(src, "a/notes.md", "b/LICENSE", "a/x.npy", content=b"text")
    put(src, "b/empty.png", content=b"")
    put(src, "b/page.png", content=b"<html>404")
    (src / "nothing").mkdir()
    (src / "b/gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(src / "b/pipe.png")
    packed = pack(str(src), tmp_path / "out", val=0)
    assert packed_names(tmp_path / "out") == {"1.png", "2.png", "3.JPG", "4.png"}
    assert packed.classes == ["a", "b"]
    listed = reasons(packed)
    entries = {str(p.relative_to(src)) for p in src.rglob("*") if not p.is_dir()} | {"nothing"}
    assert listed.keys() | {"a/1.png", "a/2.png", "b/3.JPG", "b/deep/4.png"} == entries
    assert listed["nothing"] == "empty folder"
    assert listed["a/.ipynb_checkpoints/1-checkpoint.png"] == "in a hidden folder"
    assert listed["b/gone.png"] == "a link to nothing"
    assert listed["a/notes.md"].startswith(".md files")
    assert listed["above.png"] == "beside the class folders"
    assert listed["b/empty.png"] == "empty file"
    assert "html" in listed["b/page.png"]
    lines = (tmp_path / "out/left_out.tsv").read_text().splitlines()
    assert dict(line.split("\t") for line in lines) == listed
    assert f"left out: {len(listed)} files" in "\n".join(packed.summary())


def test_file_names_are_printed_without_control_characters(tmp_path):
    src = put(tmp_path / "src", "a.png", "b.png", ".\x1b[31mred\n.png")
    packed = pack(str(src), tmp_path / "out", val=0)
    shown = "\n".join(packed.summary())
    assert "\x1b" not in shown
    assert r".\x1b[31mred\n.png" in shown
    assert len((tmp_path / "out/left_out.tsv").read_text().splitlines()) == 1


def test_cut_files_are_left_out_whatever_their_format(tmp_path):
    arrays = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "avif": "AVIF", "jp2": "JPEG2000", "tif": "TIFF"}
    for ending, format in arrays.items():
        src = tmp_path / ending
        for i in range(3):
            data = image_bytes(pixels(i, 40, 40, 3), format)
            put(src, f"{i}.{ending}", content=data[: len(data) // 2] if i == 1 else data)
        packed = pack(str(src), tmp_path / f"out-{ending}", val=0)
        assert packed.samples == {"train": 2}, ending
        assert list(reasons(packed)) == [f"1.{ending}"]
    for ending, data in (("npy", npy(np.zeros(9))), ("npy", npy(np.array([{}])))):
        put(tmp_path / "n", "0.npy", content=npy(np.zeros(9)))
        put(tmp_path / "n", f"1.{ending}", content=data[:-8])
        assert list(reasons(pack(str(tmp_path / "n"), tmp_path / f"out-{len(data)}", val=0))) == ["1.npy"]


def test_the_error_for_nothing_to_pack_has_the_last_reason(tmp_path):
    put(tmp_path / "src", "1.png", content=b"%PDF-1.7")
    with pytest.raises(DataError, match=r"1\.png: .*pdf"):
        pack(str(tmp_path / "src"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["", "pairs:"])
def test_a_sensor_whose_files_are_not_read_is_refused(tmp_path, kind):
    src = put(tmp_path / "src", *(f"rgb/{i}.png" for i in range(4)))
    put(src, *(f"imu/{i}.csv" for i in range(4)), content=b"t,x\n0,1\n")
    with pytest.raises(DataError, match=r"imu: .*\.csv"):
        pack(f"{kind}{src}", tmp_path / "out")
    put(src, *(f"imu/{i}.npy" for i in range(4)), content=npy(np.zeros((3, 5))))
    packed = pack(f"{kind}{src}", tmp_path / "out", val=0)
    assert packed.fields == {"imu.npy": 4, "rgb.png": 4}
    assert set(reasons(packed)) == {f"imu/{i}.csv" for i in range(4)}


def test_a_class_of_pictures_that_are_not_read_is_refused(tmp_path):
    src = put(tmp_path / "src", "a/1.png", "a/2.png")
    put(src, "b/3.heic", content=b"\0\0\0\x18ftypheic")
    with pytest.raises(DataError, match=r"b holds \.heic"):
        pack(f"classes:{src}", tmp_path / "out")


def test_files_outside_a_folder_of_a_class_are_not_packed_as_classes(tmp_path):
    with pytest.raises(RecipeError, match="mvssl pack"):
        pack(f"classes:{put(tmp_path / 'src', 'one.png', 'two.png')}", tmp_path / "out")


def test_pairs_without_a_common_name_are_refused(tmp_path):
    src = put(tmp_path / "src", "rgb/1_rgb.png", "rgb/2_rgb.png", "depth/1_depth.png", "depth/2_depth.png")
    with pytest.raises(DataError, match=r"depth has '1_depth', '2_depth'; rgb has '1_rgb'"):
        pack(f"pairs:{src}", tmp_path / "out")


def test_samples_that_lack_a_sensor_are_packed_and_listed(tmp_path):
    src = put(tmp_path / "src", "rgb/1.png", "rgb/2.png", "depth/2.png", "depth/3.png")
    packed = pack(f"pairs:{src}", tmp_path / "out", val=0)
    assert packed.fields == {"depth.png": 2, "rgb.png": 2}
    assert {one.path for one in packed.lacking} == {"depth/1", "rgb/3"}
    assert (tmp_path / "out/left_out.tsv").read_text().count("\n") == 2
    assert "without depth (depth/1)" in "\n".join(packed.summary())


def test_files_beside_and_below_sensors_are_listed(tmp_path):
    src = put(tmp_path / "src", "rgb/1.png", "depth/1.png", "rgb/deep/2.png", "map.png")
    listed = reasons(pack(f"pairs:{src}", tmp_path / "out", val=0))
    assert listed == {"map.png": "beside the sensor folders", "rgb/deep/2.png": "deeper than the files of its sensor"}


@pytest.mark.parametrize("names", [("Train", "VAL"), ("training", "Valid"), ("TRAIN", "Validation"), ("train", "Dev")])
def test_splits_are_known_in_any_case(tmp_path, names):
    src = put(tmp_path / "src", *(f"{split}/{one}/{one}.png" for split in names for one in "ab"))
    packed = pack(f"classes:{src}", tmp_path / "out")
    assert (packed.samples, packed.classes) == ({"train": 2, "val": 2}, ["a", "b"])


def test_a_test_folder_becomes_its_own_split_or_val(tmp_path):
    src = put(tmp_path / "src", *(f"{split}/{one}/{one}.png" for split in ("train", "val", "Test") for one in "ab"))
    put(src, "train.csv", "docs/read.me")
    packed = pack(str(src), tmp_path / "out")
    assert packed.samples == {"train": 2, "val": 2, "test": 2}
    assert set(reasons(packed)) == {"train.csv", "docs/read.me"}
    os.rename(src / "val", src / ".val")
    packed = pack(str(src), tmp_path / "again")
    assert packed.samples == {"train": 2, "val": 2}
    assert any("Test/ is packed as val/" in note for note in packed.notes)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/1.png", "bus/1.png"], "class beside bus"),
        (["Val/1.png", "test/1.png"], "no train folder"),
        (["train/1.png", "val/1.png", "valid/1.png"], "val and valid"),
    ],
)
def test_unclear_splits_are_refused(tmp_path, names, message):
    with pytest.raises(RecipeError, match=message):
        pack(f"classes:{put(tmp_path / 'src', *names)}", tmp_path / "out")


def test_classes_named_like_a_held_out_split_stay_classes(tmp_path):
    src = put(tmp_path / "src", "valid/1.png", "invalid/2.png")
    assert pack(f"classes:{src}", tmp_path / "out", val=0).classes == ["invalid", "valid"]


def test_train_and_val_that_differ_in_sensors_are_refused(tmp_path):
    src = put(tmp_path / "src", "train/rgb/1.png", "train/depth/1.png", "val/rgb/2.png")
    with pytest.raises(DataError, match=r"train has .*depth\.png, rgb\.png, and val has .*rgb\.png"):
        pack(f"pairs:{src}", tmp_path / "out")


def test_a_sensor_of_mixed_formats_becomes_one_field(tmp_path):
    src = put(tmp_path / "src", "depth/1.png", "depth/2.png", "rgb/1.png")
    put(src, "rgb/2.jpg", content=image_bytes(pixels(9), "JPEG"))
    assert pack(f"pairs:{src}", tmp_path / "out", val=0).fields == {"depth.png": 2, "rgb.png": 2}


def test_the_field_of_a_picture_is_its_real_format(tmp_path):
    src = put(tmp_path / "src", "1.jpg", "2.jpeg", "3.png")
    packed = pack(str(src), tmp_path / "out", val=0)
    assert packed.fields == {"png": 3}
    with tarfile.open(tmp_path / "out/train/000000.tar") as archive:
        bodies = {archive.extractfile(member).read() for member in archive}  # pyright: ignore
    assert bodies == {(src / name).read_bytes() for name in ("1.jpg", "2.jpeg", "3.png")}


@pytest.mark.parametrize(("format", "ending"), [("GIF", "gif"), ("WEBP", "webp"), ("PNG", "png"), ("AVIF", "avif")])
def test_animations_are_refused_by_name(tmp_path, format, ending):
    src = put(tmp_path / "src", "1.png")
    frames = [Image.fromarray(pixels(i, 16, 16, 3)) for i in range(4)]
    frames[0].save(src / f"moving.{ending}", format, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=rf"moving\.{ending}: .*4 frames"):
        pack(str(src), tmp_path / "out")


def test_colours_that_png_cannot_hold_are_refused_beside_other_kinds(tmp_path):
    src = put(tmp_path / "src", "1.png")
    Image.fromarray(pixels(0)).convert("CMYK").save(src / "2.jpg")
    with pytest.raises(DataError, match=r"2\.jpg.*without loss"):
        pack(str(src), tmp_path / "out")
    (src / "1.png").unlink()
    assert pack(str(src), tmp_path / "out", val=0).fields == {"jpg": 1}


def test_links_to_folders_are_followed_and_circles_listed(tmp_path):
    put(tmp_path / "elsewhere", "1.png", "2.png")
    src = put(tmp_path / "src", "a/3.png")
    (src / "b").symlink_to(tmp_path / "elsewhere")
    (src / "a/again").symlink_to(src)
    packed = pack(str(src), tmp_path / "out", val=0)
    assert packed.fields == {"png": 3, "cls": 3}
    assert reasons(packed) == {"a/again": "a link to a folder that holds it"}


def test_the_home_folder_is_expanded_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "src", "rgb/1.png", "depth/1.png")
    pack("pairs:~/src", "~/out", val=0)
    assert (tmp_path / "out/train").is_dir()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_pack_that_is_stopped_leaves_nothing_and_has_the_code(tmp_path, monkeypatch, number, code):
    from mvssl.cli.main import main

    monkeypatch.setattr("mvssl.data.packing.named_sets.png_bytes", lambda _: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as caught:
        main(["pack", "digits", str(tmp_path / "out")])
    assert caught.value.code == code
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    import resource

    from mvssl.errors import StorageError

    src = put(tmp_path / "src", *(f"{i}.png" for i in range(200)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(StorageError, match="nothing was kept"):
            pack(str(src), tmp_path / "out", val=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(os.listdir(tmp_path)) == ["src"]


def test_a_pgm_of_few_grays_keeps_its_numbers(tmp_path):
    (tmp_path / "src").mkdir()
    for name, text in (
        ("a", b"P5\n4 4\n15\n" + bytes(range(16))),
        ("b", b"P2 4 4 15 " + b" ".join(b"%d" % n for n in range(16))),
    ):
        (tmp_path / "src" / f"{name}.pgm").write_bytes(text)
    pack(str(tmp_path / "src"), tmp_path / "out", val=0)
    with tarfile.open(tmp_path / "out/train/000000.tar") as tar:
        for member in tar:
            assert np.asarray(Image.open(tar.extractfile(member))).ravel().tolist() == list(range(16))


def test_several_kinds_of_arrays_in_one_field_are_noted(tmp_path):
    (tmp_path / "src").mkdir()
    for name, array in (
        ("a", np.zeros((3, 4, 4), np.uint16)),
        ("b", np.zeros((3, 4, 4), np.uint8)),
        ("c", np.zeros(7)),
    ):
        np.save(tmp_path / "src" / f"{name}.npy", array)
    made = pack(str(tmp_path / "src"), tmp_path / "out", val=0)
    assert any("uint16" in note and "uint8" in note and "[7]" in note for note in made.notes)


def test_an_empty_array_is_left_out(tmp_path):
    (tmp_path / "src").mkdir()
    np.save(tmp_path / "src/a.npy", np.zeros((0, 3)))
    np.save(tmp_path / "src/b.npy", np.zeros((2, 3)))
    assert [one.path for one in pack(str(tmp_path / "src"), tmp_path / "out", val=0).left_out] == ["a.npy"]


def test_a_destination_inside_its_own_source_is_refused(tmp_path):
    from mvssl.errors import OutputError

    put(tmp_path / "src", "a/0.png", "b/0.png")
    with pytest.raises(OutputError):
        pack(f"classes:{tmp_path / 'src'}", tmp_path / "src/a/new")


def test_a_stray_file_does_not_turn_classes_into_sensors(tmp_path):
    put(tmp_path / "src", *(f"{one}/{i}.png" for one in "abc" for i in range(4)))
    (tmp_path / "src/a/notes.txt").write_text("mine")
    with pytest.raises(RecipeError):  # classes or pairs: it asks
        pack(str(tmp_path / "src"), tmp_path / "out")
