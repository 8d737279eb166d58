import io
import struct

import numpy as np
import pytest
from picture_making import chunk, deep, deep_png, oriented
from PIL import Image, ImageOps
from shard_making import image_bytes, pixels

from mvssl.data import SampleError
from mvssl.data.decoding import decode_field
from mvssl.data.decoding.images import turn_upright
from mvssl.recipe import Column

imagecodecs = pytest.importorskip("imagecodecs")


def decoded(data: bytes, field: str = "png", **options) -> np.ndarray:
    return decode_field(Column.model_validate({"field": field, **options}), field, data)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_pngs_keep_every_value_of_every_channel(channels):
    array = deep(channels, 11, 7, channels)
    found = decoded(deep_png(array))
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)
    assert np.array_equal(found, array.transpose(2, 0, 1).astype(np.float32))


def test_modes_of_sixteen_bit_colour_drop_alpha_or_weigh_to_gray():
    array = deep(0, 6, 5, 4)
    rgb = array[..., :3].transpose(2, 0, 1).astype(np.float32)
    assert np.array_equal(decoded(deep_png(array), mode="rgb"), rgb)
    gray = decoded(deep_png(array), mode="gray")
    assert gray.shape == (1, 6, 5)
    assert np.allclose(gray[0], 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2], rtol=1e-5)


def test_sixteen_bit_colour_takes_a_size_as_bands_do():
    array = deep(1, 12, 20, 3)
    file = io.BytesIO()
    np.save(file, array.transpose(2, 0, 1))
    assert np.array_equal(decoded(deep_png(array), size=6), decoded(file.getvalue(), "npy", size=6))


def test_damaged_sixteen_bit_pngs_are_bad_samples_and_no_crash():
    intact = deep_png(deep(0, 30, 30, 3))
    for cut in (30, 50, len(intact) // 2, len(intact) - 20):
        with pytest.raises(SampleError):
            decoded(intact[:cut])
    for place in range(60, len(intact) - 20, 97):
        flipped = bytearray(intact)
        flipped[place] ^= 16
        with pytest.raises(SampleError):
            decoded(bytes(flipped))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("field", "format", "options"),
    [("jpg", "JPEG", {"quality": 95}), ("png", "PNG", {}), ("webp", "WEBP", {"lossless": True}), ("avif", "AVIF", {})],
)
def test_pictures_are_turned_upright(orientation, field, format, options):
    data = oriented(pixels(3, 16, 32, 3), orientation, format, **options)
    meant = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)))).transpose(2, 0, 1)
    assert meant.shape == ((3, 32, 16) if orientation > 4 else (3, 16, 32))
    assert np.array_equal(decoded(data, field), meant)
    assert np.array_equal(turn_upright(np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1), orientation), meant)


def test_sixteen_bit_colour_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    array = deep(0, 4, 6, 3)
    found = decoded(deep_png(array, chunk(b"eXIf", exif.tobytes()[6:])))
    assert np.array_equal(found, np.rot90(array, -1).transpose(2, 0, 1).astype(np.float32))


def test_damaged_exif_does_not_change_the_picture():
    array = pixels(0, 8, 9, 3)
    data = image_bytes(array, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert np.array_equal(decoded(data), array.transpose(2, 0, 1))


def jpeg2000(array: np.ndarray, bits: int) -> bytes:
    return imagecodecs.jpeg2k_encode(array, level=0, reversible=True, bitspersample=bits, codecformat="jp2")


@pytest.mark.parametrize(
    ("bits", "shape"),
    [(8, (9, 7)), (8, (9, 7, 3)), (12, (9, 7)), (16, (9, 7)), (12, (9, 7, 3)), (16, (9, 7, 2)), (16, (9, 7, 5))],
)
def test_jpeg_2000_keeps_its_bits(bits, shape):
    array = np.random.default_rng(bits).integers(0, 1 << bits, shape, np.uint8 if bits == 8 else np.uint16)
    found = decoded(jpeg2000(array, bits), "jp2")
    assert found.dtype == (np.uint8 if bits == 8 else np.float32)
    assert np.array_equal(found, array.reshape(*array.shape[:2], -1).transpose(2, 0, 1))


def test_jpeg_2000_that_pillow_would_cut_names_the_package_that_reads_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    with pytest.raises(SampleError, match=r"3 channels of 16 bits.*pip install 'mvssl\[tiff\]'"):
        decoded(imagecodecs.jpeg2k_encode(deep(0, 8, 8, 3), level=0, codecformat="j2k"), "j2k")


def test_avif_is_read_as_pillow_reads_it():
    data = image_bytes(pixels(0, 16, 12, 3), "AVIF")
    assert np.array_equal(decoded(data, "avif").transpose(1, 2, 0), np.asarray(Image.open(io.BytesIO(data))))


def test_avif_of_more_than_eight_bits_keeps_them(monkeypatch):
    array = np.random.default_rng(0).integers(0, 1024, (12, 10, 3), np.uint16)
    data = imagecodecs.avif_encode(array, level=100, bitspersample=10, pixelformat="444")
    found = decoded(data, "avif")
    assert found.dtype == np.float32
    assert np.array_equal(found, imagecodecs.avif_decode(data).transpose(2, 0, 1))
    assert found.max() > 255
    monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
    with pytest.raises(SampleError, match=r"pip install 'mvssl\[tiff\]'"):
        decoded(data, "avif")


@pytest.mark.parametrize("format", ["PNG", "WEBP", "AVIF"])
def test_animations_are_refused_and_not_cut_to_a_frame(format):
    frames, file = [Image.fromarray(pixels(i, 16, 16, 3)) for i in range(3)], io.BytesIO()
    frames[0].save(file, format, save_all=True, append_images=frames[1:])
    with pytest.raises(SampleError, match="3 frames"):
        decoded(file.getvalue(), format.lower())


@pytest.mark.parametrize(
    ("field", "data", "message"),
    [
        ("jpg", image_bytes(pixels(0)), r"those of a png file; name the field or file \.png"),
        ("png", image_bytes(pixels(0), "JPEG"), r"name the field or file \.jpg"),
        ("jpg", b"<!DOCTYPE html><p>not found", "a html file"),
        ("png", b"II*\0" + bytes(40), "a tif file"),
        ("webp", b"garbage", "webp"),
    ],
)
def test_bytes_of_another_format_are_named(field, data, message):
    with pytest.raises(SampleError, match=message):
        decoded(data, field)


def test_a_16_bit_png_beyond_the_pixel_limit_is_refused_unread():
    bomb = deep_png(deep(0, 2, 2, 3))
    header = struct.pack(">IIBBBBB", 9000, 9000, 16, 2, 0, 0, 0)
    with pytest.raises(SampleError, match="limit"):
        decoded(bomb[:8] + chunk(b"IHDR", header) + bomb[33:])
