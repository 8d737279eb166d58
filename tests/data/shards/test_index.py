import multiprocessing
import pickle
import tarfile

import numpy as np
import pytest
from shard_making import write_digits, write_tar
from webdataset.tariterators import base_plus_ext

from mvssl.data.shards import index_cache
from mvssl.data.shards.index import Index, scan_shard, split_name
from mvssl.errors import DataError


@pytest.mark.parametrize("name", ["a.jpg", "a.b.jpg", "x/y.z/a.rgb.jpg", "a", ".hidden", "d.e/a", "a/b.0001.c"])
def test_keys_and_fields_are_those_of_webdataset(name):
    key, field = base_plus_ext(name)
    assert split_name(name) == (None if key is None else (key, field))


def test_fields_are_lower_case_and_keys_have_no_leading_dot_slash():
    assert split_name("./a/B.RGB.JPG") == ("a/B", "rgb.jpg")


def test_the_index_has_the_place_of_every_field(tmp_path):
    path = write_tar(tmp_path / "x.tar", [("a.jpg", b"12345"), ("a.cls", b"7"), ("b.cls", b"89"), ("b.json", b"{}")])
    found = scan_shard(path)
    assert found.keys.tolist() == [b"a", b"b"]
    assert found.fields == ["jpg", "cls", "json"]
    assert found.sizes.tolist() == [[5, 1, -1], [-1, 2, 2]]
    data = path.read_bytes()
    assert [data[o : o + 2] for o in found.offsets[1, 1:]] == [b"89", b"{}"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.jpg", "a.jpg"], "twice"),
        (["a.JPG", "a.jpg"], "twice"),
        (["img.1.jpg", "img.1.jpg"], "twice"),
        (["a.jpg", "b.jpg", "a.cls", "b.cls"], "appears twice"),
        (["a.jpg", "b.jpg", "a.jpg"], "appears twice"),
    ],
)
def test_duplicate_and_interleaved_samples_are_errors(tmp_path, names, message):
    with pytest.raises(DataError, match=message):
        scan_shard(write_tar(tmp_path / "x.tar", [(name, b"x") for name in names]))


def test_a_dot_in_the_name_splits_at_the_first_as_in_webdataset(tmp_path):
    found = scan_shard(write_tar(tmp_path / "x.tar", [("img.0001.jpg", b"x"), ("img.0002.jpg", b"y")]))
    assert (found.keys.tolist(), found.fields) == ([b"img"], ["0001.jpg", "0002.jpg"])


def test_what_belongs_to_no_sample_is_counted(tmp_path):
    found = scan_shard(
        write_tar(tmp_path / "x.tar", [("README", b""), ("._a.jpg", b""), ("__info__/m.json", b""), ("a.jpg", b"x")])
    )
    assert (len(found.keys), found.ignored) == (1, 3)


def same(one: Index, two: Index) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True) if a is not None or b is not None)


def test_a_cached_index_equals_a_fresh_one_and_is_used(tmp_path, monkeypatch):
    (path,) = write_digits(tmp_path, [5])
    first = index_cache.load_index(path)
    monkeypatch.setattr(index_cache, "scan_shard", None)  # a second scan would fail
    assert same(index_cache.load_index(path), first)


def forget_to_write_beside(monkeypatch, path):
    """Indexes cannot be written beside the shard, as on a read-only file system."""
    write = index_cache.write_index_file
    monkeypatch.setattr(
        index_cache,
        "write_index_file",
        lambda cache, made: cache.parent != path.parent.resolve() and write(cache, made),
    )


@pytest.mark.parametrize("beside_has_digests", [True, False])
def test_a_fresh_index_is_used_despite_a_stale_one_beside_the_shard(tmp_path, monkeypatch, beside_has_digests):
    monkeypatch.delenv("MVSSL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (path,) = write_digits(tmp_path / "set", [5])
    true = index_cache.load_index(path)
    wrong = np.ones(true.sizes.shape, np.uint32) if beside_has_digests else None
    stale = true._replace(stamp=true.stamp._replace(ctime=true.stamp.ctime - 1), digests=wrong)
    index_cache.write_index_file(index_cache.index_files(path)[0], stale)
    forget_to_write_beside(monkeypatch, path)
    made = index_cache.load_index(path, digests=True)
    monkeypatch.setattr(index_cache, "scan_shard", None)  # a second scan would fail
    assert same(index_cache.load_index(path), made._replace(renewed=0))
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MVSSL_CACHE", raising=False)
    assert np.array_equal(index_cache.rescan(path).digests, made.digests)


def test_a_right_index_is_used_despite_a_wrong_one_with_the_right_stamp(tmp_path, monkeypatch):
    monkeypatch.delenv("MVSSL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (path,) = write_digits(tmp_path / "set", [5])
    true = index_cache.load_index(path)
    index_cache.write_index_file(index_cache.index_files(path)[0], true._replace(keys=true.keys[::-1]))
    forget_to_write_beside(monkeypatch, path)
    index_cache.load_index(path)
    monkeypatch.setattr(index_cache, "scan_shard", None)
    assert same(index_cache.load_index(path), true)


def test_a_cached_index_reads_few_of_the_members_that_are_no_samples(tmp_path, monkeypatch):
    pairs = [(name, b"x") for i in range(400) for name in (f"._{i:04d}.png", f"{i:04d}.png")]
    together = [(f"._{i:04d}.png", b"x") for i in range(400)]
    path = write_tar(tmp_path / "x.tar", [*pairs, *together])
    first = index_cache.load_index(path)
    assert first.ignored == 800
    real, reads = index_cache.Archive._read, []
    monkeypatch.setattr(index_cache.Archive, "_read", lambda *a: reads.append(a[1:]) or real(*a))
    monkeypatch.setattr(index_cache, "scan_shard", None)
    assert same(index_cache.load_index(path), first)
    assert len(reads) <= 16 * 16


def test_a_shard_that_changed_is_indexed_anew(tmp_path):
    (path,) = write_digits(tmp_path, [5])
    index_cache.load_index(path)
    write_digits(tmp_path, [6])
    assert len(index_cache.load_index(path).keys) == 6


@pytest.mark.parametrize("beside", [True, False])
def test_a_damaged_index_file_is_rebuilt(tmp_path, monkeypatch, beside):
    if beside:
        monkeypatch.delenv("MVSSL_CACHE")
    (path,) = write_digits(tmp_path / "set", [5])
    first = index_cache.load_index(path)
    cache = index_cache.index_files(path)[0]
    intact = cache.read_bytes()
    for damaged in (
        b"",
        intact[:100],
        intact[:-40],
        intact[:200] + b"\xff" * 50 + intact[250:],
        pickle.dumps({"keys": 1}),
    ):
        cache.write_bytes(damaged)
        assert same(index_cache.load_index(path), first)
    assert len(cache.read_bytes()) == len(intact)


class TouchesOnLoad:
    def __reduce__(self):
        return (open, ("executed", "w"))


def test_pickled_objects_in_a_cache_are_never_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (path,) = write_digits(tmp_path / "set", [2])
    first = index_cache.load_index(path)
    np.savez(
        index_cache.index_files(path)[0], stamp=np.array([1, *first.stamp]), keys=np.array([TouchesOnLoad()], object)
    )
    assert same(index_cache.load_index(path), first)
    assert not (tmp_path / "executed").exists()


def test_the_index_is_hidden_beside_the_shard_or_in_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MVSSL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (path,) = write_digits(tmp_path / "set", [2])
    index_cache.load_index(path)
    assert [file.name for file in path.parent.iterdir() if file != path] == [".000000.tar.mvssl.npz"]
    (other,) = write_digits(tmp_path / "fixed", [2])
    other.with_name(".000000.tar.mvssl.npz").mkdir()  # nothing can be saved there
    index_cache.load_index(other)
    assert len(list((tmp_path / "home/.cache/mvssl/index").iterdir())) == 1


def test_shards_of_one_name_in_two_folders_have_two_caches(tmp_path):
    (one,), (two,) = write_digits(tmp_path / "a", [2]), write_digits(tmp_path / "b", [3])
    assert [len(index_cache.load_index(path).keys) for path in (one, two, one, two)] == [2, 3, 2, 3]


def test_many_processes_may_index_one_shard_at_once(tmp_path):
    (path,) = write_digits(tmp_path, [50])
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.map(index_cache.load_index, [path] * 8)
    assert all(same(one, found[0]) for one in found)
    assert len(list(index_cache.index_files(path)[0].parent.iterdir())) == 1


def test_all_damaged_shards_are_named_at_once(tmp_path):
    paths = write_digits(tmp_path, [2, 2, 2])
    for path in paths[1:]:
        path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(DataError, match=r"(?s)000001\.tar.*000002\.tar"):
        index_cache.index_shards(paths)


def test_an_archive_without_members_is_no_shard(tmp_path):
    tarfile.open(tmp_path / "x.tar", "w").close()
    for _ in range(2):
        with pytest.raises(DataError, match=r"x\.tar holds no samples"):
            index_cache.load_index(tmp_path / "x.tar")
