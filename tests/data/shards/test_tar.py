import gzip
import io
import subprocess
import tarfile

import numpy as np
import pytest
from shard_making import write_tar
from webdataset.writer import ShardWriter

from mvssl.data.shards.index import scan_shard
from mvssl.data.shards.shard_file import open_shard
from mvssl.data.shards.tar import Archive, Member
from mvssl.errors import DataError


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """A tar by webdataset: 20 samples with bodies of unequal length and no zero byte."""
    folder = tmp_path_factory.mktemp("tar")
    generator = np.random.default_rng(0)
    with ShardWriter(f"{folder}/%06d.tar", verbose=0, encoder=False, mtime=0) as writer:
        for i in range(20):
            body = generator.integers(1, 256, 300 + 97 * i, np.uint8).tobytes()
            writer.write({"__key__": f"{i:06d}", "bin": body, "cls": b"3"})
    return folder / "000000.tar"


def read_members(path) -> list[Member]:
    with open_shard(path) as opened:
        return list(Archive(opened))


def headers(path) -> list[int]:
    with tarfile.open(path) as archive:
        return [member.offset for member in archive.getmembers()]


def end_of_members(path) -> int:
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    return last.offset_data + -(-last.size // 512) * 512


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_of_tarfile_in_every_format(tmp_path, format):
    names = ["a.jpg", "deep/" * 10 + "b.png", "n" * 90 + "/" + "m" * 60 + ".cls", "ü/ß.json", "0" * 90 + ".txt"]
    path = write_tar(tmp_path / "x.tar", [(name, b"x" * (511 + i)) for i, name in enumerate(names)], format)
    with tarfile.open(path) as archive:
        expected = [(m.name, m.offset_data, m.size, m.offset) for m in archive.getmembers()]
    assert read_members(path) == expected


def test_every_cut_that_loses_a_byte_of_the_archive_is_found(shard, tmp_path):
    intact, end, cut_file = shard.read_bytes(), end_of_members(shard) + 1024, tmp_path / "cut.tar"
    for cut in range(0, len(intact), 97):
        cut_file.write_bytes(intact[:cut])
        if cut >= end and cut % 512 == 0:  # only the padding behind a complete archive is gone
            assert len(read_members(cut_file)) == 40
        else:
            with pytest.raises(DataError, match=r"cut\.tar"):
                read_members(cut_file)


@pytest.mark.parametrize("damage", [bytes(512), b"\xff" * 512, b"0" * 512])
def test_every_overwritten_header_is_found(shard, tmp_path, damage):
    for place in headers(shard):
        broken = bytearray(shard.read_bytes())
        broken[place : place + 512] = damage
        (tmp_path / "broken.tar").write_bytes(broken)
        with pytest.raises(DataError):
            read_members(tmp_path / "broken.tar")


def test_one_changed_byte_anywhere_in_a_header_is_found(shard, tmp_path):
    generator = np.random.default_rng(1)
    for place in headers(shard):
        broken = bytearray(shard.read_bytes())
        broken[place + generator.integers(512)] ^= 1 << generator.integers(7)
        (tmp_path / "broken.tar").write_bytes(broken)
        with pytest.raises(DataError, match="damaged"):
            read_members(tmp_path / "broken.tar")


def test_the_digest_depends_on_the_archive_and_not_on_its_folder(tmp_path):
    def digest(folder, members):
        return scan_shard(write_tar(tmp_path / folder / "x.tar", members)).archive

    first = digest("a", [("0.cls", b"1")])
    assert first == digest("b", [("0.cls", b"1")])
    assert first != digest("c", [("1.cls", b"1")])
    assert first != digest("d", [("0.cls", b"12")])


@pytest.mark.parametrize("name", ["/etc/x.jpg", "../x.jpg", "a/../../x.jpg", "a/" * 130 + "x.jpg"])
def test_names_that_leave_the_folder_or_are_too_long_are_refused(tmp_path, name):
    with pytest.raises(DataError, match="relative path"):
        read_members(write_tar(tmp_path / "x.tar", [(name, b"x")], tarfile.GNU_FORMAT))


def test_a_nul_in_a_pax_path_is_refused(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("x.jpg")
        entry.pax_headers = {"path": "a\0b.jpg"}
        archive.addfile(entry, io.BytesIO())
    with pytest.raises(DataError, match="relative path"):
        read_members(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        entry = tarfile.TarInfo("x.jpg")
        entry.type, entry.linkname = kind, "/etc/passwd"
        archive.addfile(entry)
    with pytest.raises(DataError, match="plain files"):
        read_members(path)


def test_empty_missing_compressed_and_foreign_files_are_named(tmp_path, shard):
    (tmp_path / "empty.tar").touch()
    (tmp_path / "small.tar.gz").write_bytes(gzip.compress(shard.read_bytes()))
    (tmp_path / "text.tar").write_text("hello " * 500)
    for name, message in [
        ("empty.tar", "empty"),
        ("small.tar.gz", "gunzip"),
        ("text.tar", "header"),
        ("no.tar", "No such"),
    ]:
        with pytest.raises(DataError, match=message):
            read_members(tmp_path / name)


def test_a_size_beyond_the_file_is_found_however_it_is_written(tmp_path):
    path = write_tar(tmp_path / "x.tar", [("a.jpg", b"x")])
    for size in (b"77777777777\0", b"\x80" + b"\xff" * 11):
        broken = bytearray(path.read_bytes())
        broken[124:136], broken[148:156] = size, b" " * 8
        broken[148:156] = b"%06o\0 " % sum(broken[:512])
        (tmp_path / "y.tar").write_bytes(broken)
        with pytest.raises(DataError, match="cut short"):
            read_members(tmp_path / "y.tar")


def test_a_tail_of_zeros_is_more_than_tar_writes(shard, tmp_path):
    intact = bytearray(shard.read_bytes())
    for keep in (headers(shard)[20], 0):  # a power failure left the file's length, and zeros from some header on
        lost = intact[:keep] + bytes(len(intact) - keep)
        (tmp_path / "lost.tar").write_bytes(lost)
        with pytest.raises(DataError, match=r"lost\.tar .* bytes of zeros"):
            read_members(tmp_path / "lost.tar")


def test_every_padding_that_tar_writes_is_accepted(tmp_path):
    for size in range(1, 12_000, 509):  # the last record is full of zeros, or nearly empty of them
        assert len(read_members(write_tar(tmp_path / "x.tar", [("a.bin", b"x" * size)]))) == 1


@pytest.mark.parametrize(
    ("magic", "program"),
    [(b"\x1f\x8b", "gunzip"), (b"BZh9", "bunzip2"), (b"\xfd7zXZ\0", "unxz"), (b"\x28\xb5\x2f\xfd", "unzstd")],
)
def test_the_program_that_unpacks_a_compressed_shard_is_named(tmp_path, magic, program):
    (tmp_path / "x.tar").write_bytes(magic + bytes(2000))
    with pytest.raises(DataError, match=program):
        read_members(tmp_path / "x.tar")


def test_two_tars_in_one_file_differ_from_a_damaged_one(tmp_path):
    one = write_tar(tmp_path / "x.tar", [("a.cls", b"1")]).read_bytes()
    (tmp_path / "x.tar").write_bytes(one + one)
    with pytest.raises(DataError, match=r"separate shards.*tar --concatenate"):
        read_members(tmp_path / "x.tar")
    (tmp_path / "x.tar").write_bytes(one + b"x" * 1024)
    with pytest.raises(DataError, match=r"overwritten with zeros$"):
        read_members(tmp_path / "x.tar")


def test_the_commands_for_a_tar_in_another_order_repair_it(tmp_path):
    """A folder listed as the disk gives it, and not by name, is how such tars come about."""
    path = write_tar(tmp_path / "it's here.tar", [(n, b"1") for n in ("d/a.jpg", "d/b.jpg", "d/a.cls", "d/b.cls")])
    with pytest.raises(DataError, match="appears twice") as error:
        scan_shard(path)
    command = str(error.value).partition("names: ")[2]
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert scan_shard(tmp_path / "sorted-it's here.tar").keys.tolist() == [b"d/a", b"d/b"]
