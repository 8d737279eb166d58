import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from shard_making import image_bytes, npy, pixels

from mvssl.data import SampleError
from mvssl.data.decoding import decode_field
from mvssl.recipe import Column


def column(field: str = "png", **options) -> Column:
    return Column.model_validate({"field": field, **options})


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (np.ones((2, 3, 4), np.uint8), np.uint8),
        (np.ones((2, 3), bool), np.float32),
        (np.eye(3, dtype=bool)[None], np.float32),
        (np.ones((13, 4, 4), np.uint16), np.float32),
        (np.ones((9, 125), np.float64), np.float32),
        (np.ones(7, np.float16), np.float32),
        (np.array(3), np.int64),
        (np.array(0.5), np.float32),
        (np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.float32),
        (np.ones((3, 3), ">i4"), np.float32),
    ],
)
def test_arrays_keep_shape_and_values(array, dtype):
    found = decode_field(column("npy"), "npy", npy(array))
    assert found.dtype == dtype
    assert np.array_equal(found, array)


def test_arrays_with_their_channels_last_are_turned():
    imu, bands = np.arange(12.0).reshape(4, 3), np.arange(24).reshape(2, 4, 3).astype(np.uint8)
    for array in (imu, bands, np.arange(5.0)):
        found = decode_field(column("npy", channels_last=True), "npy", npy(array))
        assert found.flags.c_contiguous
        assert np.array_equal(found, np.moveaxis(array, -1, 0))
    assert decode_field(column("npy", channels_last=True, size=1), "npy", npy(bands)).shape == (3, 1, 1)


def test_an_npz_gives_its_only_array_or_the_one_named_by_path():
    one, two = io.BytesIO(), io.BytesIO()
    np.savez_compressed(one, x=np.arange(3.0))
    np.savez(two, x=np.arange(3.0), y=np.arange(4.0))
    assert decode_field(column("npz"), "npz", one.getvalue()).tolist() == [0, 1, 2]
    assert decode_field(column("npz", path="y"), "npz", two.getvalue()).tolist() == [0, 1, 2, 3]
    for options in ({}, {"path": "z"}):
        with pytest.raises(SampleError, match="x, y"):
            decode_field(column("npz", **options), "npz", two.getvalue())


def test_an_npy_header_with_a_size_beyond_the_bytes_is_refused():
    honest, shape = npy(np.zeros(4)), b"(4,), }"
    asked = b"(4000000000000,), }"
    lie = honest.replace(shape + b" " * (len(asked) - len(shape)), asked)
    assert lie != honest
    assert len(lie) == len(honest)
    with pytest.raises(SampleError, match="takes 32,000,000,000,000"):
        decode_field(column("npy"), "npy", lie)


def test_an_npz_bomb_is_refused_by_its_stated_size(monkeypatch):
    monkeypatch.setattr("mvssl.data.decoding.arrays.MAX_BYTES", 1000)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", npy(np.zeros(100_000)))
    with pytest.raises(SampleError, match="limit is 1,000"):
        decode_field(column("npz"), "npz", file.getvalue())


class TouchesOnLoad:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_pickles_are_never_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objects, file = np.array([TouchesOnLoad()], object), io.BytesIO()
    np.savez(file, x=objects)
    for field, data in [
        ("npy", npy(objects)),
        ("npz", file.getvalue()),
        ("npy", pickle.dumps(TouchesOnLoad())),
        ("json", pickle.dumps(TouchesOnLoad())),
    ]:
        with pytest.raises(SampleError):
            decode_field(column(field), field, data)
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(TouchesOnLoad()))
    assert (tmp_path / "executed").exists()  # the class itself works


def test_nan_becomes_the_fill_value_and_infinity_is_bad():
    array = np.array([[1.0, np.nan], [np.nan, 4.0]], np.float16)
    assert decode_field(column("npy", nan=-9999), "npy", npy(array)).tolist() == [[1, -9999], [-9999, 4]]
    with pytest.raises(SampleError, match="NaN or infinite"):
        decode_field(column("npy", nan=0), "npy", npy(np.array([np.nan, np.inf])))


def test_a_single_band_with_a_size_is_an_image():
    band = pixels(0, 12, 10)
    assert np.array_equal(
        decode_field(column("npy", size=[6, 5]), "npy", npy(band)),
        decode_field(column(size=[6, 5]), "png", image_bytes(band)),
    )
    assert decode_field(column("npy"), "npy", npy(band)).shape == (12, 10)


@pytest.mark.parametrize(
    ("shape", "unclear"),
    [
        ((32, 40, 3), True), ((8, 8, 1), True), ((5, 5, 4), True), ((1000, 3), True), ((32, 2), True),
        ((3, 32, 40), False), ((13, 4, 4), False), ((1, 40, 3), False), ((4, 64, 2), False), ((3, 1000), False),
        ((16, 3), False), ((64, 1), False), ((64, 64), False), ((9,), False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [np.float32, np.uint8])
def test_unclear_channels_are_refused_and_not_guessed(shape, unclear, kind):
    array = np.arange(np.prod(shape)).reshape(shape).astype(kind)
    turned = decode_field(column("npy", channels_last=True), "npy", npy(array))
    assert np.array_equal(turned, np.moveaxis(array, -1, 0))
    assert np.array_equal(decode_field(column("npy", channels_last=False), "npy", npy(array)), array)
    if unclear:
        with pytest.raises(SampleError, match="channels_last: true to turn it, or false"):
            decode_field(column("npy"), "npy", npy(array))
    else:
        assert np.array_equal(decode_field(column("npy"), "npy", npy(array)), array)
