"""Shards and indexes that are not what they claim to be: edited, swapped, forged."""

import os
import tarfile

import numpy as np
import pytest
from shard_making import flip, image_bytes, members, pixels, write_digits, write_tar

from mvssl.data import SampleError, open_shards, summarize_shards, verify_shards
from mvssl.data.shards import index_cache
from mvssl.data.shards.index import scan_shard
from mvssl.data.shards.shard_file import FileStamp
from mvssl.errors import DataError, StorageError
from mvssl.recipe import Column

DIGITS = {"image": Column(field="png"), "label": Column(field="cls")}


def test_every_flipped_bit_of_every_body_is_found_and_named(tmp_path):
    (path,) = write_digits(tmp_path, [6])
    summarize_shards("*.tar", tmp_path, digests=True)
    intact = path.read_bytes()
    for number, (key, field, offset, size) in enumerate(members(path)):
        flip(path, offset + (37 * number) % size, number % 8)
        ((shard, *named, reason),) = verify_shards("*.tar", tmp_path).faults
        assert (shard, named) == (str(path), [key, field])
        assert "differ from the index's digest" in reason
        path.write_bytes(intact)
    assert verify_shards("*.tar", tmp_path).faults == []


def test_training_reads_no_body_that_differs_from_its_digest(tmp_path):
    (path,) = write_digits(tmp_path, [12])
    for digests in (False, True):
        summarize_shards("*.tar", tmp_path, digests=digests)
        source = open_shards("*.tar", tmp_path, DIGITS)
        assert source.checked == digests
    key, _, offset, size = next(one for one in members(path) if one[1] == "cls" and one[3] == 2)
    flip(path, offset + size - 1)  # 10 becomes 11, which decodes
    changed = open_shards("*.tar", tmp_path, DIGITS)
    for i in range(12):
        if changed.key(i) == key:
            with pytest.raises(SampleError, match="differ from the index's digest") as error:
                changed[i]
            assert (error.value.column, key in str(error.value)) == ("label", True)
        else:
            assert changed[i]["label"] == i
    assert changed.checked == 1


def test_digests_are_kept_until_headers_change_or_new_ones_are_requested(tmp_path):
    (path,) = write_digits(tmp_path / "a", [3])
    first = index_cache.load_index(path, digests=True)
    assert np.array_equal(index_cache.load_index(path).digests, first.digests)
    os.utime(path)
    assert np.array_equal(index_cache.load_index(path).digests, first.digests)
    _, _, offset, _ = members(path)[0]
    flip(path, offset)
    assert np.array_equal(index_cache.load_index(path).digests, first.digests)  # or the damage would go unnoticed
    anew = index_cache.load_index(path, digests=True)
    assert (anew.renewed, (anew.digests != first.digests).sum()) == (1, 1)
    write_digits(tmp_path / "a", [4])
    assert index_cache.load_index(path).digests is None


def test_the_digests_of_a_copied_shard_and_index_are_kept(tmp_path, monkeypatch):
    monkeypatch.delenv("MVSSL_CACHE")
    (path,) = write_digits(tmp_path / "a", [3])
    index_cache.load_index(path, digests=True)
    (tmp_path / "b").mkdir()
    for file in path.parent.iterdir():
        (tmp_path / "b" / file.name).write_bytes(file.read_bytes())
    assert index_cache.load_index(tmp_path / "b" / path.name).digests is not None


def test_the_fingerprint_does_not_depend_on_digests(tmp_path):
    write_digits(tmp_path, [5])
    plain = open_shards("*.tar", tmp_path, DIGITS).fingerprint
    summarize_shards("*.tar", tmp_path, digests=True)
    assert open_shards("*.tar", tmp_path, DIGITS).fingerprint == plain


def swapped_fields(found):
    return {name: getattr(found, name)[:, ::-1].copy() for name in ("offsets", "sizes")}


FORGED = {
    "offsets reversed": lambda found: {"offsets": found.offsets[::-1].copy()},
    "rows reversed": lambda found: {name: getattr(found, name)[::-1].copy() for name in ("offsets", "sizes")},
    "two samples swapped": lambda found: {"offsets": found.offsets[[0, 1, 3, 2, *range(4, 40)]]},
    "fields of the samples swapped": swapped_fields,
    "fields renamed": lambda found: {"fields": found.fields[::-1]},
    "keys renamed": lambda found: {"keys": found.keys[::-1].copy()},
    "one key renamed": lambda found: {"keys": np.array([*found.keys[:-1], b"9999"])},
    "keys that repeat": lambda found: {"keys": np.repeat(found.keys[:1], len(found.keys))},
    "keys that are no text": lambda found: {"keys": np.array([b"\xff%d" % i for i in range(len(found.keys))])},
    "negative offsets": lambda found: {"offsets": found.offsets - found.stamp.size},
    "offsets past the end": lambda found: {"offsets": found.offsets + found.stamp.size},
    "the largest offsets": lambda found: {"offsets": np.full_like(found.offsets, 2**63 - 1)},
    "offsets within a block": lambda found: {"offsets": found.offsets + 1},
    "all in one place": lambda found: {"offsets": np.full_like(found.offsets, 512)},
    "sizes that are too small": lambda found: {"sizes": np.maximum(found.sizes - 1, 0)},
    "sizes that are too large": lambda found: {"sizes": found.sizes + 600},
    "the largest sizes": lambda found: {"sizes": np.full_like(found.sizes, 2**63 - 1)},
    "no sizes": lambda found: {"sizes": np.full_like(found.sizes, -1)},
    "half of the samples": lambda found: {n: getattr(found, n)[:20] for n in ("keys", "offsets", "sizes", "headers")},
    "half of the samples, the rest declared": lambda found: {
        **{n: getattr(found, n)[:20] for n in ("keys", "offsets", "sizes", "headers")},
        "others": np.array([[found.offsets[20, 0] - 512, found.offsets[-1, -1] + 512]]),
    },
    "no headers": lambda found: {"headers": np.zeros_like(found.headers)},
    "long headers": lambda found: {"headers": found.headers + 3},
    "digests of another shape": lambda found: {"digests": np.zeros((2, 2), np.uint32)},
    "samples of no fields": lambda found: {"fields": [], "offsets": found.offsets[:, :0]},
}


@pytest.mark.parametrize("forgery", FORGED)
def test_a_forged_index_with_the_right_stamp_is_rebuilt(tmp_path, forgery):
    (path,) = write_digits(tmp_path, [40])
    true = index_cache.load_index(path)
    index_cache.write_index_file(index_cache.index_files(path)[0], true._replace(**FORGED[forgery](true)))
    source = open_shards("*.tar", tmp_path, DIGITS)
    assert [int(source[i]["label"]) for i in range(40)] == list(range(40))
    assert [source.key(i) for i in range(40)] == [f"{i:04d}" for i in range(40)]


def test_the_index_of_another_shard_is_not_used(tmp_path):
    one, two = write_digits(tmp_path, [40, 40])
    other = index_cache.load_index(one)
    index_cache.write_index_file(index_cache.index_files(two)[0], other._replace(stamp=FileStamp.of(two)))
    source = open_shards("*1.tar", tmp_path, DIGITS)
    assert [int(source[i]["label"]) for i in range(40)] == list(range(40, 80))


def test_a_wrong_place_in_an_index_is_found_when_the_body_is_read(tmp_path, monkeypatch):
    (path,) = write_digits(tmp_path, [40])
    true = index_cache.load_index(path)
    order = [*range(10), 11, 10, *range(12, 40)]
    monkeypatch.setattr(index_cache, "belongs_to_shard", lambda _: True)
    forged = true._replace(offsets=true.offsets[order], sizes=true.sizes[order])
    index_cache.write_index_file(index_cache.index_files(path)[0], forged)
    source = open_shards("*.tar", tmp_path, DIGITS)
    for i in (10, 11):
        with pytest.raises(SampleError, match="something else at its place"):
            source[i]
    assert source[12]["label"] == 12


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_read_and_checked_too(tmp_path, format):
    names = [f"{'deep/' * 40}{i:04d}" for i in range(20)]
    pictures = [image_bytes(pixels(i)) for i in range(20)]
    pairs = zip(names, pictures, strict=True)
    written = [("__about__", b""), *((f"{name}.png", data) for name, data in pairs), ("README", b"x" * 700)]
    path = write_tar(tmp_path / "x.tar", written, format)
    for _ in range(2):
        source = open_shards("x.tar", tmp_path, {"image": DIGITS["image"]})
        assert [source.key(i) for i in range(20)] == names
        assert np.array_equal(source[7]["image"], pixels(7).transpose(2, 0, 1))
    assert index_cache.belongs_to_shard(index_cache.load_index(path))
    assert not index_cache.belongs_to_shard(
        index_cache.load_index(path)._replace(keys=index_cache.load_index(path).keys[::-1])
    )


def test_a_disk_that_fails_is_no_bad_sample(tmp_path, monkeypatch):
    write_digits(tmp_path, [9])
    source = open_shards("*.tar", tmp_path, DIGITS)

    def fails(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fails)
    from mvssl.data import loader

    with pytest.raises(StorageError, match="Input/output error"):
        next(iter(loader(source, batch_size=4, seed=0, stop_step=2)))
    for action in (lambda: verify_shards("*.tar", tmp_path), lambda: open_shards("*.tar", tmp_path, DIGITS)):
        with pytest.raises(StorageError, match="Input/output error"):
            action()


def test_few_descriptors_are_enough_and_none_is_a_storage_error(tmp_path, monkeypatch):
    write_digits(tmp_path, [2] * 9)
    source = open_shards("*.tar", tmp_path, DIGITS)
    real, free = os.open, [3]

    def few(path, flags, *more):
        if str(path).endswith(".tar") and free[0] == 0:
            raise OSError(24, "Too many open files")
        free[0] -= str(path).endswith(".tar")
        return real(path, flags, *more)

    def close(descriptor):
        free[0] += 1
        os_close(descriptor)

    os_close = os.close
    monkeypatch.setattr(os, "open", few)
    monkeypatch.setattr(os, "close", close)
    assert [int(source[i]["label"]) for i in range(18)] == list(range(18))
    source._reader, free[0] = type(source._reader)(), 0
    with pytest.raises(SampleError, match="ulimit -n"):
        source[0]
    with pytest.raises(StorageError, match="ulimit -n") as error:
        scan_shard(tmp_path / "000000.tar")
    assert error.value.code == 74


def test_a_shard_whose_keys_hold_the_number_after_a_dot_is_pointed_out(tmp_path):
    write_tar(tmp_path / "x.tar", [(f"img.{i:04d}.png", image_bytes(pixels(i))) for i in range(48)])
    for seen in (summarize_shards("x.tar", tmp_path), verify_shards("x.tar", tmp_path)):
        (hint,) = seen.hints
        assert "1 sample with 48 numbered fields" in hint
        assert "first dot" in hint
    with pytest.raises(DataError, match="first dot"):
        open_shards("x.tar", tmp_path, {"image": DIGITS["image"]})


def test_a_field_for_each_sample_does_not_fill_the_memory(tmp_path):
    with pytest.raises(DataError, match=r"1,024 different fields.*first dot"):
        scan_shard(write_tar(tmp_path / "x.tar", [(f"{i}.{i}.png", b"") for i in range(1100)]))


def test_numbered_frames_of_many_samples_give_no_hint(tmp_path):
    write_tar(tmp_path / "x.tar", [(f"{i}.{frame}.png", b"x") for i in range(9) for frame in range(4)])
    assert summarize_shards("x.tar", tmp_path).hints == []
