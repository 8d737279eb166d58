import io
import json
import pickle
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shard_making import image_bytes, npy, pixels

from mvssl.data import SampleError
from mvssl.data.decoding import decode_field
from mvssl.recipe import Column


def column(field: str = "png", **options) -> Column:
    return Column.model_validate({"field": field, **options})


def saved(image: Image.Image, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


@pytest.mark.parametrize(
    ("field", "format"), [("jpg", "JPEG"), ("a.jpeg", "JPEG"), ("rgb.png", "PNG"), ("webp", "WEBP")]
)
def test_images_are_channels_first_bytes_as_pillow_reads_them(field, format):
    data = image_bytes(pixels(0, 12, 9, 3), format)
    array = decode_field(column(field), field, data)
    assert (array.dtype, array.shape, array.flags.c_contiguous) == (np.uint8, (3, 12, 9), True)
    assert np.array_equal(array.transpose(1, 2, 0), np.asarray(Image.open(io.BytesIO(data))))


def test_sixteen_bit_gray_keeps_its_values_as_floats():
    wide = np.random.default_rng(0).integers(0, 65536, (6, 5), np.uint16)
    array = decode_field(column("depth.png"), "depth.png", saved(Image.fromarray(wide)))
    assert array.dtype == np.float32
    assert np.array_equal(array, wide[None].astype(np.float32))
    with pytest.raises(SampleError, match="leave mode out"):
        decode_field(column(mode="rgb"), "png", saved(Image.fromarray(wide)))


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "CMYK"])
def test_other_kinds_of_images_ask_for_a_mode_and_take_it(mode):
    format, field = ("JPEG", "jpg") if mode == "CMYK" else ("PNG", "png")
    data = saved(Image.fromarray(pixels(0)).convert("L" if mode == "LA" else "RGB").convert(mode), format)
    with pytest.raises(SampleError, match="mode: rgb or mode: gray"):
        decode_field(column(field), field, data)
    assert decode_field(column(field, mode="rgb"), field, data).shape == (3, 8, 8)
    assert decode_field(column(field, mode="gray"), field, data).shape == (1, 8, 8)


def test_gray_stays_one_channel_unless_rgb_is_asked_for():
    data = image_bytes(pixels(0, 8, 8))
    assert decode_field(column(), "png", data).shape == (1, 8, 8)
    assert decode_field(column(mode="rgb"), "png", data).shape == (3, 8, 8)


def test_one_bit_images_are_black_and_white():
    array = decode_field(column(), "png", saved(Image.fromarray(pixels(0, 8, 8) > 128)))
    assert set(np.unique(array)) == {0, 255}


@pytest.mark.parametrize(
    ("shape", "size", "covered"), [((40, 60), 20, (20, 30)), ((60, 40), [30, 10], (30, 20)), ((9, 9), 18, (18, 18))]
)
def test_size_resizes_with_the_aspect_kept_and_crops_the_centre(shape, size, covered):
    array = pixels(0, *shape, 3)
    height, width = (size, size) if isinstance(size, int) else size
    resized = np.asarray(Image.fromarray(array).resize(covered[::-1], Image.Resampling.BILINEAR))
    top, left = (covered[0] - height) // 2, (covered[1] - width) // 2
    expected = resized[top : top + height, left : left + width].transpose(2, 0, 1)
    assert np.array_equal(decode_field(column(size=size), "png", image_bytes(array)), expected)
    bands = decode_field(column("npy", size=size), "npy", npy(array.transpose(2, 0, 1)))
    assert np.array_equal(bands, expected)


def test_nearest_keeps_the_numbers_of_classes_in_the_same_geometry():
    """Blocks of 4 x 4 pixels: shrunk by 4, each is one pixel, and no number between two classes appears."""
    blocks = np.random.default_rng(0).integers(0, 2, (5, 9), np.uint8) * 39
    large = blocks.repeat(4, 0).repeat(4, 1)
    given = column(size=5, interpolation="nearest")
    assert np.array_equal(decode_field(given, "png", image_bytes(large))[0], blocks[:, 2:7])
    assert np.array_equal(
        decode_field(given.model_copy(update={"field": "npy"}), "npy", npy(large[None]))[0], blocks[:, 2:7]
    )
    assert set(np.unique(decode_field(column(size=5), "png", image_bytes(large)))) != {0, 39}


def test_a_palette_keeps_its_numbers_where_none_are_mixed():
    numbers = np.arange(12, dtype=np.uint8).reshape(3, 4)
    image = Image.fromarray(numbers).convert("P")
    image.putpalette([v for k in range(256) for v in (255 - k, k, 7)])
    assert np.array_equal(decode_field(column(interpolation="nearest"), "png", saved(image))[0], numbers)


def test_an_image_of_the_right_size_is_untouched():
    array = pixels(0, 16, 16)
    assert np.array_equal(decode_field(column(size=16), "png", image_bytes(array))[0], array)


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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_make_a_bad_sample(value):
    array = np.zeros((2, 5), np.float32)
    array[1, 3] = value
    with pytest.raises(SampleError, match="1 of 10 values"):
        decode_field(column("npy"), "npy", npy(array))
    with pytest.raises(SampleError, match="1 of 1 values"):
        decode_field(column("txt"), "txt", str(value).encode())


@pytest.mark.parametrize(
    ("field", "data", "options", "expected", "dtype"),
    [
        ("cls", b"7\n", {}, 7, np.int64),
        ("txt", b" 3 ", {}, 3, np.int64),
        ("txt", b"2.5", {}, 2.5, np.float32),
        ("json", b"4", {}, 4, np.int64),
        ("json", b'{"a": {"b": [5, 6.5]}}', {"path": "a.b.1"}, 6.5, np.float32),
        ("json", b'{"a": [1, 2]}', {"path": "a"}, [1, 2], np.int64),
        ("json", b'{"a": true}', {"path": "a"}, 1, np.int64),
        ("json", b'{"c": [0, 3]}', {"path": "c", "classes": 5}, [1, 0, 0, 1, 0], np.float32),
        ("json", b'{"c": []}', {"path": "c", "classes": 3}, [0, 0, 0], np.float32),
        ("cls", b"1", {"classes": 3}, [0, 1, 0], np.float32),
    ],
)
def test_labels_and_metadata(field, data, options, expected, dtype):
    found = decode_field(column(field, **options), field, data)
    assert (found.dtype, found.tolist()) == (dtype, expected)


@pytest.mark.parametrize(
    ("field", "data", "options", "message"),
    [
        ("cls", b"cat", {}, r"neither a number.*names: \[cat"),
        ("cls", b"", {}, "empty"),
        ("txt", b"cat", {}, "neither a number"),
        ("json", b'{"a": 1', {}, "json"),
        ("json", b'{"a": 1}', {"path": "b.c"}, r"nothing at 'b' \(a\)"),
        ("json", b'{"a": "cat"}', {"path": "a"}, "neither a number"),
        ("json", b'{"a": [1, [2]]}', {"path": "a"}, "neither a number"),
        ("json", b"[" * 100_000, {}, "json"),
        ("json", b'{"a": [5]}', {"path": "a", "classes": 5}, "from 0 to 4"),
        ("json", b'{"a": [-1]}', {"path": "a", "classes": 5}, "from 0 to 4"),
        ("jpg", b"", {}, "empty"),
        ("jpg", b"\xff\xd8garbage", {}, "jpe?g"),
        ("png", image_bytes(pixels(0))[:-40], {}, "png"),
        ("jpg", image_bytes(pixels(0, 64, 64, 3), "JPEG")[:900], {}, "jpe?g"),
        ("jpg", image_bytes(pixels(0)), {}, "jpe?g"),  # a png by another name
        ("npy", npy(np.zeros(9))[:-1], {}, "takes"),
        ("npy", npy(np.zeros((1, 1, 1, 2))), {}, "4 dimensions"),
        ("npy", npy(np.zeros(2, complex)), {}, "complex"),
        ("npy", npy(np.array(["a"])), {}, "numbers"),
        ("npz", b"PK garbage", {}, "npz"),
    ],
)
def test_unusable_fields_are_bad_samples_with_a_reason(field, data, options, message):
    with pytest.raises(SampleError, match=message):
        decode_field(column(field, **options), field, data)


def test_an_image_beyond_the_pixel_limit_is_refused_before_it_is_unpacked():
    bomb = bytearray(image_bytes(pixels(0, 4, 4)))
    bomb[16:24] = (9000).to_bytes(4, "big") + (9000).to_bytes(4, "big")  # width and height, in the first chunk
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    with pytest.raises(SampleError, match=r"limit|exceeds"):
        decode_field(column(), "png", bytes(bomb))


def test_an_npy_header_that_asks_for_more_than_there_is_allocates_nothing():
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


class Spy:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_pickles_are_never_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    objects, file = np.array([Spy()], object), io.BytesIO()
    np.savez(file, x=objects)
    for field, data in [
        ("npy", npy(objects)),
        ("npz", file.getvalue()),
        ("npy", pickle.dumps(Spy())),
        ("json", pickle.dumps(Spy())),
    ]:
        with pytest.raises(SampleError):
            decode_field(column(field), field, data)
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(Spy()))
    assert (tmp_path / "executed").exists()  # the spy itself works


def test_json_numbers_that_are_too_large_are_bad_samples():
    with pytest.raises(SampleError):
        decode_field(column("json"), "json", json.dumps(10**30).encode())


@pytest.mark.parametrize(
    ("field", "data", "options", "expected"),
    [
        ("json", b'{"who": "theo"}', {"path": "who"}, 1),
        ("txt", b"nicolas", {}, 2),
        ("json", b'{"heard": ["nicolas", "george"]}', {"path": "heard", "classes": 4}, [1, 0, 1, 0]),
    ],
)
def test_texts_become_the_numbers_of_their_names(field, data, options, expected):
    named = column(field, names=["george", "theo", "nicolas"], **options)
    assert decode_field(named, field, data).tolist() == expected
    with pytest.raises(SampleError, match="'lucas' is none of the names george, theo"):
        decode_field(named, "txt", b"lucas")


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


NAMED = {"names": ["cat", "dog", "7"]}


@pytest.mark.parametrize(
    ("field", "data", "expected"),
    [
        ("cls", b"dog\n", 1),
        ("cls", b"1", 1),
        ("cls", b"7", 2),  # a name, before it is a number
        ("txt", b"0", 0),
        ("json", b"2", 2),
        ("json", b'["dog", 0]', [1, 0]),
        ("cls", b"\xef\xbb\xbfcat", 0),
    ],
)
def test_texts_become_class_numbers_by_their_place_in_names(field, data, expected):
    assert decode_field(column(field, **NAMED), field, data).tolist() == expected


@pytest.mark.parametrize(
    ("field", "data", "message"),
    [
        ("cls", b"cow", "'cow' is none of the names cat, dog, 7, nor a number from 0 to 2"),
        ("cls", b"3", "'3' is none of the names"),
        ("cls", b"-1", "'-1' is none"),
        ("json", b"true", "True is none"),
        ("json", b"1.5", "1.5 is none"),
        ("json", b'["dog", "cow"]', "'cow' is none"),
        ("cls", b"1\x1b[2J", r"'1\\x1b\[2J' is none"),
    ],
)
def test_a_text_outside_of_names_is_refused_with_the_accepted_names(field, data, message):
    with pytest.raises(SampleError, match=message):
        decode_field(column(field, **NAMED), field, data)


@pytest.mark.parametrize("field", ["cls", "txt", "json"])
def test_a_byte_order_mark_is_no_part_of_a_text(field):
    assert decode_field(column(field), field, b"\xef\xbb\xbf12\n").tolist() == 12


@pytest.mark.parametrize("data", [b"1_000", "١".encode(), b"0x10", b"1__5.0"])
def test_numbers_that_only_python_accepts_are_refused(data):
    with pytest.raises(SampleError):
        decode_field(column("cls"), "cls", data)


@pytest.mark.parametrize("data", [b"9" * 5000, b"[" * 100_000, b'{"a": ' * 100_000])
def test_json_beyond_the_limits_of_python_is_a_reason(data):
    with pytest.raises(SampleError, match="no readable json"):
        decode_field(column("json"), "json", data)


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


def test_resampling_that_would_need_gigabytes_is_refused():
    head = b"RIFF" + bytes(4) + b"WAVEfmt " + (16).to_bytes(4, "little") + b"\1\0\1\0" + (1).to_bytes(4, "little")
    data = head + bytes(4) + b"\2\0\x10\0data" + (20_000).to_bytes(4, "little") + bytes(20_000)
    with pytest.raises(SampleError, match="480,000,000 samples"):
        decode_field(column("wav", rate=48_000), "wav", data)
