"""Shards that change while they are in use, and the headers by which each body is known."""

import io
import os
import pickle
import tarfile

import pytest
from shard_making import flip, members, write_digits, write_tar
from webdataset import TarWriter

from mvssl.data import SampleError, open_shards, summarize_shards
from mvssl.data.sample_errors import ReadError
from mvssl.data.shards import field_reader, index_cache
from mvssl.data.shards.index import scan_shard
from mvssl.data.shards.shard_file import FileStamp
from mvssl.errors import StorageError
from mvssl.recipe import Column

DIGITS = {"image": Column(field="png"), "label": Column(field="cls")}


@pytest.mark.parametrize("timing", ["before", "while it is open"])
def test_a_shard_edited_with_its_time_put_back_is_noticed(tmp_path, timing):
    (path,) = write_digits(tmp_path, [9])
    source = open_shards("*.tar", tmp_path, DIGITS)
    if timing == "before":
        source._reader = type(source._reader)()
    else:
        source[5]
    _, _, offset, _ = members(path)[11]  # the class of sample 5
    flip(path, offset)
    with pytest.raises(SampleError, match="has changed"):
        source[5]
    assert open_shards("*.tar", tmp_path, DIGITS)[5]["label"] == 4


def test_a_new_link_or_mode_is_no_change(tmp_path):
    (path,) = write_digits(tmp_path, [9])
    source = open_shards("*.tar", tmp_path, DIGITS)
    source[5]
    os.link(path, tmp_path / "backup")
    assert source[5]["label"] == 5
    path.chmod(0o640)
    source._reader = type(source._reader)()
    assert source[6]["label"] == 6


def move_ctime_alone(path):
    """What leaves size, mtime, mode and links as they are, as a backup's link that comes and goes."""
    before = FileStamp.of(path)
    while FileStamp.of(path) == before:
        path.chmod(path.stat().st_mode)


@pytest.mark.parametrize("digests", [True, False])
@pytest.mark.parametrize("copied", [True, False])
def test_a_ctime_that_moves_alone_is_no_change(tmp_path, digests, copied):
    (path,) = write_digits(tmp_path, [9])
    summarize_shards("*.tar", tmp_path, digests=digests)
    source = open_shards("*.tar", tmp_path, DIGITS)
    source[5]
    move_ctime_alone(path)
    source = pickle.loads(pickle.dumps(source)) if copied else source
    assert [int(source[i]["label"]) for i in range(9)] == list(range(9))


def test_a_shard_whose_ctime_moved_is_scanned_once(tmp_path, monkeypatch):
    (path,) = write_digits(tmp_path, [9])
    source, scans = open_shards("*.tar", tmp_path, DIGITS), []
    monkeypatch.setattr(field_reader, "scan_shard", lambda path: scans.append(path) or scan_shard(path))
    for times in (1, 2):
        move_ctime_alone(path)
        assert [int(source[i]["label"]) for i in range(9)] == list(range(9))
        assert scans == [path] * times


def test_an_edit_after_the_ctime_moved_is_noticed(tmp_path):
    (path,) = write_digits(tmp_path, [9])
    source = open_shards("*.tar", tmp_path, DIGITS)
    move_ctime_alone(path)
    assert source[5]["label"] == 5
    _, _, offset, _ = members(path)[11]  # the class of sample 5
    flip(path, offset)
    for _ in range(2):
        with pytest.raises(SampleError, match="has changed"):
            source[5]


def test_an_edit_that_no_scan_sees_is_found_by_its_digest(tmp_path):
    (path,) = write_digits(tmp_path, [40])  # a scan reads bodies of sixteen samples
    summarize_shards("*.tar", tmp_path, digests=True)
    source = open_shards("*.tar", tmp_path, DIGITS)
    known = scan_shard(path).digest
    for _, _, offset, _ in (place for place in members(path) if place[1] == "cls"):
        flip(path, offset)
        if scan_shard(path).digest == known:
            break
        flip(path, offset)
    number = int(members(path)[[place[2] for place in members(path)].index(offset)][0])
    with pytest.raises(SampleError, match="differ from the index's digest"):
        source[number]
    assert source[0]["label"] == 0


def test_a_disk_error_during_a_second_scan_is_no_bad_sample(tmp_path, monkeypatch):
    (path,) = write_digits(tmp_path, [9])
    source = open_shards("*.tar", tmp_path, DIGITS)
    move_ctime_alone(path)

    def fails(_):
        raise StorageError("Input/output error")

    monkeypatch.setattr(field_reader, "scan_shard", fails)
    with pytest.raises(ReadError, match="Input/output error"):
        source[5]


@pytest.mark.parametrize("writer", ["webdataset", "posix", "long posix names", "upper case"])
def test_headers_that_were_read_with_a_body_are_not_read_again(tmp_path, monkeypatch, writer):
    path, names = tmp_path / "x.tar", [f"{i:04d}" for i in range(5)]
    if writer == "webdataset":
        with TarWriter(str(path)) as opened:
            for name in names:
                opened.write({"__key__": name, "cls": name})
    else:
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
            for name in names:
                full_name = f"{'deep/' * 40 * ('long' in writer)}{name}.{'CLS' if 'upper' in writer else 'cls'}"
                entry = tarfile.TarInfo(full_name)
                entry.size, entry.mtime = len(name), 0.5
                archive.addfile(entry, io.BytesIO(name.encode()))
    found = index_cache.load_index(path)
    assert found.headers.tolist() == [[3]] * 5
    files, shard = field_reader.FieldReader(), field_reader.IndexedShard(path, found.stamp, found.digest)
    real, reads = os.pread, []
    monkeypatch.setattr(os, "pread", lambda *a: reads.append(a) or real(*a))
    for key, (offset,), (size,) in zip(found.keys, found.offsets.tolist(), found.sizes.tolist(), strict=True):
        place = field_reader.FieldLocation(bytes(key), "cls", offset, size, 3, None)
        assert files.read(shard, place) == bytes(key)[-4:]
        for wrong in (place._replace(key=b"x" + place.key), place._replace(size=size - 1)):
            with pytest.raises(SampleError, match="something else"):
                files.read(shard, wrong)
    assert "long" in writer or len(reads) == 15


def test_a_name_that_a_longer_header_replaces_is_not_used(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for record in ("path", "mtime"):
            entry = tarfile.TarInfo("a.cls")
            entry.size, entry.pax_headers = 1, {record: "b.cls" if record == "path" else "0.5"}
            archive.addfile(entry, io.BytesIO(b"7"))
    found = index_cache.load_index(path)
    assert found.keys.tolist() == [b"b", b"a"]
    shard, place = (
        field_reader.IndexedShard(path, found.stamp, found.digest),
        field_reader.FieldLocation(b"a", "cls", 1536, 1, 3, None),
    )
    with pytest.raises(SampleError, match="something else"):
        field_reader.FieldReader().read(shard, place)
    assert field_reader.FieldReader().read(shard, place._replace(key=b"b")) == b"7"
    assert field_reader.FieldReader().read(shard, place._replace(offset=1536 + 2048)) == b"7"


def test_a_shard_written_over_while_it_is_open_yields_no_sample(tmp_path):
    (path,) = write_digits(tmp_path, [9])
    source = open_shards("*.tar", tmp_path, DIGITS)
    source[5]
    names = [(f"{i:04d}.cls" if j else f"{i:04d}.png", b"x" * 80) for i in range(9) for j in range(2)]
    new = write_tar(tmp_path / "new", names).read_bytes()
    with open(path, "r+b") as file:
        file.write(new)
    with pytest.raises(SampleError, match="changed"):
        source[5]
