import io
import zlib

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


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_make_a_bad_sample(value):
    array = np.zeros((2, 5), np.float32)
    array[1, 3] = value
    with pytest.raises(SampleError, match="1 of 10 values"):
        decode_field(column("npy"), "npy", npy(array))
    with pytest.raises(SampleError, match="1 of 1 values"):
        decode_field(column("txt"), "txt", str(value).encode())


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
