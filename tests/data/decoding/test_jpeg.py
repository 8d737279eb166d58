"""JPEGs that simplejpeg decodes have the pixels of Pillow, and Pillow's verdict on damaged ones."""

import io
import itertools
import random

import numpy as np
import pytest
from PIL import Image

from mvssl.data.decoding import images
from mvssl.data.decoding.images import decode_jpeg, image_array, read_image
from mvssl.data.decoding.jpeg import read_jpeg_header
from mvssl.recipe.schema import Column

simplejpeg = pytest.importorskip("simplejpeg")


def photograph(height: int, width: int) -> Image.Image:
    rng = np.random.default_rng(height)
    coarse = Image.fromarray(rng.integers(256, size=(-(-height // 8), -(-width // 8), 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def by_pillow(data: bytes, **column) -> np.ndarray:
    return image_array(Column(field="jpg", **column), read_image(data, "jpg"))


def fast(data: bytes, **column) -> np.ndarray:
    return decode_jpeg(Column(field="jpg", **column), data, "jpg")


@pytest.fixture
def without_pillow(monkeypatch):
    """Pillow decodes nothing, so that only the fast way can."""
    monkeypatch.setattr(images, "read_image", None)


@pytest.mark.parametrize("shape", [(1, 1), (32, 32), (33, 47), (17, 64), (100, 7)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_those_of_pillow_for_all_kinds_of_plain_files(shape, mode, monkeypatch):
    image = photograph(*shape).convert(mode)
    kinds = itertools.product(("4:4:4", "4:2:2", "4:2:0"), (False, True), (5, 50, 95), (0, 4))
    for subsampling, progressive, quality, restart in kinds:
        data = jpeg(
            image, quality=quality, subsampling=subsampling, progressive=progressive, restart_marker_blocks=restart
        )
        expected = by_pillow(data)
        with monkeypatch.context() as patched:
            patched.setattr(images, "read_image", None)
            assert np.array_equal(fast(data), expected)


@pytest.mark.parametrize("subsampling", ["440", "411"])
def test_pixels_are_those_of_pillow_for_rare_subsampling(subsampling, without_pillow):
    data = simplejpeg.encode_jpeg(np.asarray(photograph(41, 70)), colorsubsampling=subsampling)
    assert np.array_equal(fast(data), np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1))


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_turned_photograph_is_upright(turn, without_pillow):
    exif = Image.Exif()
    exif[0x0112] = turn
    data = jpeg(photograph(24, 40), exif=exif)
    expected = image_array(Column(field="jpg"), images.upright(Image.open(io.BytesIO(data))))
    assert np.array_equal(fast(data), expected)


@pytest.mark.parametrize("column", [{"size": 16}, {"mode": "gray"}, {"mode": "rgb"}, {"mode": "gray", "size": [8, 12]}])
def test_size_and_mode_of_a_column_give_what_pillow_gives(column):
    for image in (photograph(24, 40), photograph(24, 40).convert("L")):
        data = jpeg(image, quality=90)
        assert np.array_equal(fast(data, **column), by_pillow(data, **column))


def test_cmyk_is_left_to_pillow():
    data = jpeg(photograph(16, 16).convert("CMYK"))
    assert read_jpeg_header(data) is None
    assert np.array_equal(fast(data, mode="rgb"), by_pillow(data, mode="rgb"))


def test_damaged_bytes_are_accepted_and_refused_as_by_pillow():
    numbers = random.Random(0)
    whole = [
        jpeg(photograph(24, 40), quality=quality, progressive=progressive)
        for quality in (30, 90)
        for progressive in (False, True)
    ]
    seen = set()
    for _ in range(3000):
        data = bytearray(numbers.choice(whole))
        place = numbers.randrange(len(data))
        kind = numbers.choice(["flip", "cut", "drop", "zero"])
        if kind == "flip":
            data[place] ^= 1 << numbers.randrange(8)
        elif kind == "cut":
            del data[place:]
        elif kind == "drop":
            del data[place : place + numbers.randrange(1, 9)]
        else:
            data[place : place + 8] = bytes(len(data[place : place + 8]))
        results = []
        for decode in (fast, by_pillow):
            try:
                results.append(decode(bytes(data)))
            except Exception:
                results.append(None)
        ours, theirs = results
        assert (ours is None) == (theirs is None), (kind, place)
        assert ours is None or np.array_equal(ours, theirs), (kind, place)
        seen.add((kind, ours is None))
    assert {("flip", True), ("flip", False), ("cut", True), ("drop", False), ("zero", False)} <= seen
