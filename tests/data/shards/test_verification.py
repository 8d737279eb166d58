import io

import numpy as np
import pytest
from shard_making import image_bytes, npy, pixels, replace_field, write_digits, write_tar

from mvssl.data import SampleError, summarize_shards, verify_shards
from mvssl.data.decoding import decode_field
from mvssl.data.packing import pack
from mvssl.errors import DataError
from mvssl.recipe import Column


def test_sound_shards_have_no_faults_and_everything_is_counted(tmp_path):
    paths = write_digits(tmp_path, [7, 5])
    seen = verify_shards("*.tar", tmp_path)
    assert (seen.shards, seen.samples, seen.decoded, seen.faults) == (2, 12, 24, [])
    assert seen.bytes == sum(path.stat().st_size for path in paths)


def test_every_injected_fault_is_found_and_named(tmp_path):
    fields = {
        "a.png": b"no",
        "b.jpg": image_bytes(pixels(0, 40, 40, 3), "JPEG")[:700],
        "c.npy": npy(np.array([1.0, np.nan])),
        "d.npy": npy(np.array([object()])),
        "e.json": b"{",
        "f.cls": b"c\x01t",
        "g.txt": b"\xff\xfe",
        "h.npz": b"PK",
        "i.webp": b"",
    }
    good = {"j.png": image_bytes(pixels(0)), "k.json": b'{"name": "text is fine here"}', "l.txt": "façade".encode()}
    write_tar(tmp_path / "x.tar", [(name, content) for name, content in (fields | good).items()])
    faults = verify_shards(str(tmp_path / "x.tar")).faults
    assert [(fault.key, fault.field) for fault in faults] == [tuple(name.split(".")) for name in fields]
    assert all(fault.reason and fault.shard == str(tmp_path / "x.tar") for fault in faults)


def test_damaged_shards_are_faults_and_the_others_are_still_read(tmp_path):
    paths = write_digits(tmp_path, [3, 3, 3])
    verify_shards("*.tar", tmp_path)
    paths[1].write_bytes(paths[1].read_bytes()[:-9500])
    seen = verify_shards("*.tar", tmp_path)
    assert (seen.shards, seen.samples) == (3, 6)
    ((shard, key, field, reason),) = seen.faults
    assert (shard, key, field) == (str(paths[1]), "", "")
    assert "cut short" in reason


def test_the_check_never_trusts_a_cached_index(tmp_path):
    import os

    (path,) = write_digits(tmp_path, [3])
    summarize_shards("*.tar", tmp_path)
    before = os.stat(path)
    broken = bytearray(path.read_bytes())
    broken[1024:1536] = bytes(512)  # the second header, with size and time of the file as before
    path.write_bytes(broken)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert len(verify_shards("*.tar", tmp_path).faults) == 1


def test_fields_without_a_decoder_are_counted(tmp_path):
    write_tar(tmp_path / "x.tar", [("0.pkl", b"?"), ("0.cls", b"1"), ("1.cls", b"1")])
    seen = verify_shards("x.tar", tmp_path)
    assert (seen.unknown, seen.lacking, seen.decoded) == ({"pkl": 1}, {"pkl": 1}, 2)


def test_no_shards_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no shards match"):
        verify_shards("*.tar", tmp_path)


def test_the_summary_counts_samples_fields_and_bytes(tmp_path):
    packed = pack("digits", tmp_path / "digits")
    seen = summarize_shards("digits/{train,val}/*.tar", tmp_path)
    assert seen.samples == sum(packed.samples.values()) == 1797
    assert seen.fields["cls"] == (1797, 1797)
    assert {field: count for field, (count, _) in seen.fields.items()} == packed.fields
    assert [samples for _, samples, _ in seen.shards] == [1437, 360]
    assert seen.bytes == sum(path.stat().st_size for path in tmp_path.rglob("*.tar"))


def test_a_fault_put_into_a_packed_shard_is_found(tmp_path):
    pack("digits", tmp_path / "digits")
    replace_field(tmp_path / "digits/val/000000.tar", "00000007.png", b"garbage")
    ((_, key, field, _),) = verify_shards("digits/*/*.tar", tmp_path).faults
    assert (key, field) == ("00000007", "png")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1 + 2j]), "complex128"),
        (np.array(["text"]), "numbers are accepted"),
        (np.zeros((1, 2, 3, 4)), "4 dimensions"),
        (np.array([1.0, 1e300]), "1 of 2 values are NaN or infinite"),
        (np.float64(1e300), "1 of 1 values"),
    ],
)
def test_verify_reports_arrays_that_training_refuses(tmp_path, array, message):
    file = io.BytesIO()
    np.savez(file, x=array)
    write_tar(tmp_path / "x.tar", [("0.npy", npy(array)), ("0.npz", file.getvalue()), ("1.npy", npy(np.zeros(3)))])
    faults = verify_shards("x.tar", tmp_path).faults
    assert [(key, field) for _, key, field, _ in faults] == [("0", "npy"), ("0", "npz")]
    with pytest.raises(SampleError) as trained:
        decode_field(Column(field="npy"), "npy", npy(array))
    assert {fault.reason for fault in faults} == {trained.value.reason}
    assert message in trained.value.reason


def test_text_beside_the_arrays_of_an_npz_is_no_fault(tmp_path):
    file = io.BytesIO()
    np.savez(file, scan=np.zeros((1, 4, 4)), patient=np.array("A-17"))
    write_tar(tmp_path / "x.tar", [("0.npz", file.getvalue())])
    assert verify_shards("x.tar", tmp_path).faults == []
