import io

import numpy as np
import pytest
from PIL import Image
from shard_making import pixels, put

from mvssl.data import open_shards
from mvssl.data.decoding import tiff as tiffs
from mvssl.data.packing import pack
from mvssl.data.sample_errors import PartialDecodeError
from mvssl.errors import DataError
from mvssl.recipe import Column

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")

SOME = np.random.default_rng(0)


def written(array: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def values(data: bytes) -> np.ndarray:
    """[c, h, w], as pack would keep it."""
    found = tiffs.read_tiff(io.BytesIO(data))
    array = np.asarray(found)
    assert tiffs.inspect_tiff(io.BytesIO(data)).field == ("png" if isinstance(found, Image.Image) else "npy")
    return array if not isinstance(found, Image.Image) else array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "zstd", "lzma", "packbits"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"planarconfig": "separate"}, {"bigtiff": True}])
@pytest.mark.parametrize("predictor", [False, True])
def test_bands_are_equal_to_the_last_bit_however_they_are_stored(compression, layout, predictor):
    bands = SOME.integers(0, 65536, (5, 40, 24), np.uint16)
    options = {"photometric": "minisblack", "planarconfig": "contig", "compression": compression, **layout}
    options |= {"predictor": True} if predictor and compression not in (None, "packbits") else {}
    data = written(bands if "planarconfig" in layout else bands.transpose(1, 2, 0), **options)
    found = values(data)
    assert found.dtype == np.uint16
    assert np.array_equal(found, bands)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_type_keeps_its_values(dtype, order):
    raw = SOME.integers(0, 256, (2, 9, 7, np.dtype(dtype).itemsize), np.uint8)
    array = raw.view(dtype)[..., 0] if dtype[0] in "ui" else SOME.normal(size=(2, 9, 7)).astype(dtype)
    found = values(written(array, photometric="minisblack", planarconfig="separate", byteorder=order))
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_one_bit_and_palettes_keep_their_numbers_as_pictures(photometric):
    bits = SOME.integers(0, 2, (9, 13)).astype(bool)
    assert np.array_equal(values(written(bits, photometric=photometric))[0], bits)
    numbers, colours = pixels(0, 9, 13), (SOME.integers(0, 256, (3, 256)) * 257).astype(np.uint16)
    found = tiffs.read_tiff(io.BytesIO(written(numbers, photometric="palette", colormap=colours)))
    assert isinstance(found, Image.Image)
    assert np.array_equal(np.asarray(found), numbers)
    assert np.array_equal(np.asarray(found.convert("RGB")), (colours.T // 257)[numbers])


def test_pages_of_one_band_become_channels_and_other_stacks_are_refused():
    stack = SOME.integers(0, 9999, (5, 8, 9), np.uint16)
    data = written(stack, photometric="minisblack")
    assert np.array_equal(values(data), stack)
    assert any("5 pages" in note for note in tiffs.inspect_tiff(io.BytesIO(data)).notes)
    for array in (pixels(0, 4, 8, 9, 3), pixels(0, 2, 3, 8, 9)):
        with pytest.raises(PartialDecodeError, match="pages as files of their own"):
            tiffs.inspect_tiff(io.BytesIO(written(array, photometric="rgb" if array.shape[-1] == 3 else "minisblack")))


def test_overviews_are_ignored_and_other_pictures_refused():
    picture, file = SOME.integers(0, 9999, (32, 32), np.uint16), io.BytesIO()
    with tifffile.TiffWriter(file) as tiff:
        tiff.write(picture, photometric="minisblack", metadata=None)
        tiff.write(picture[::2, ::2], subfiletype=1, photometric="minisblack", metadata=None)
    assert np.array_equal(values(file.getvalue())[0], picture)
    with tifffile.TiffWriter(other := io.BytesIO()) as tiff:
        tiff.write(picture, photometric="minisblack", metadata=None)
        tiff.write(picture[:7, :7], photometric="minisblack", metadata=None)
    with pytest.raises(PartialDecodeError, match="2 different pictures"):
        tiffs.inspect_tiff(io.BytesIO(other.getvalue()))


def test_orientation_is_applied_and_nodata_is_reported():
    array = SOME.normal(size=(6, 9)).astype(np.float32)
    data = written(array, extratags=[(274, 3, 1, 6, True), (42113, 2, 6, "-9999", True)], metadata=None)
    assert np.array_equal(values(data)[0], np.rot90(array, -1))
    assert any("'-9999'" in note for note in tiffs.inspect_tiff(io.BytesIO(data)).notes)


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [(np.zeros((8, 8), np.complex64), {}, "imaginary"), (pixels(0), {"photometric": "cielab"}, "CIELAB")],
)
def test_complex_numbers_and_unknown_colours_are_refused(array, options, message):
    with pytest.raises(PartialDecodeError, match=message):
        tiffs.inspect_tiff(io.BytesIO(written(array, **options)))


def test_a_tiff_beyond_the_limit_is_refused_before_it_is_unpacked(monkeypatch):
    monkeypatch.setattr("mvssl.data.decoding.tiff.MAX_BYTES", 1000)
    with pytest.raises(DataError, match="limit is 1,000"):
        tiffs.read_tiff(io.BytesIO(written(np.zeros((30, 30), np.float32), compression="zstd")))


def test_sentinel_like_pairs_are_packed_and_read_back(tmp_path):
    radar, optical = {}, {}
    for i in range(4):
        radar[i] = SOME.normal(-15, 5, (2, 16, 16)).astype("f4")
        optical[i] = SOME.integers(0, 10000, (13, 16, 16), np.uint16)
        put(tmp_path, f"eo/s1/p{i}.tif", content=written(radar[i], photometric="minisblack", planarconfig="separate"))
        put(tmp_path, f"eo/s2/p{i}.tif", content=written(optical[i].transpose(1, 2, 0), photometric="minisblack",
            planarconfig="contig", compression="lzw"))  # fmt: skip
    packed = pack(f"pairs:{tmp_path / 'eo'}", tmp_path / "out", val=0)
    assert packed.fields == {"s1.npy": 4, "s2.npy": 4}
    source = open_shards("train/*.tar", tmp_path / "out", {"s1": Column(field="s1.npy"), "s2": Column(field="s2.npy")})
    names = dict(line.split("\t") for line in (tmp_path / "out/train/names.tsv").read_text().splitlines())
    for i in range(4):
        number = int(names[source.key(i)][1:])
        assert np.array_equal(source[i]["s1"], radar[number])
        assert np.array_equal(source[i]["s2"], optical[number].astype(np.float32))


def test_without_tifffile_what_pillow_would_cut_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    plain = {"rgb": pixels(0), "gray": pixels(0, 8, 8), "deep": SOME.integers(0, 65536, (8, 8), np.uint16),
             "float": SOME.normal(size=(8, 8)).astype("f4")}  # fmt: skip
    for name, array in plain.items():
        found = values(written(array, photometric="rgb" if name == "rgb" else "minisblack"))
        assert np.array_equal(found, array.transpose(2, 0, 1) if array.ndim == 3 else array[None])
    for number, (array, photometric) in enumerate(
        [
            (pixels(0, 8, 8, 4), "rgb"),
            (SOME.integers(0, 65536, (8, 8, 3), np.uint16), "rgb"),
            (pixels(0, 3, 8, 8), "minisblack"),
            (SOME.integers(0, 2**32, (8, 8), np.uint32), "minisblack"),
        ]
    ):
        put(tmp_path, f"{number}/cut.tif", content=written(array, photometric=photometric))
        with pytest.raises(DataError, match=r"cut\.tif: .*pip install 'mvssl\[tiff\]'"):
            pack(str(tmp_path / str(number)), tmp_path / "out")


def test_tiffs_that_are_cut_anywhere_are_left_out_and_no_crash(tmp_path):
    for compression in (None, "lzw", "zstd"):
        data = written(SOME.integers(0, 65536, (20, 20, 4), np.uint16), photometric="rgb", compression=compression)
        for cut in range(9, len(data) - 1, len(data) // 12):
            with pytest.raises(Exception) as caught:  # noqa: PT011  # pack makes one error of all of them
                tiffs.read_tiff(io.BytesIO(data[:cut]))
            assert not isinstance(caught.value, MemoryError)


@pytest.mark.parametrize("options", [{}, {"metadata": None}, {"imagej": True}, {"metadata": None, "bigtiff": True}])
def test_a_stack_that_is_cut_does_not_pass_for_a_smaller_one(options):
    stack = SOME.integers(0, 9999, (5, 12, 9), np.uint16)
    data = written(stack, photometric="minisblack", **options)
    for cut in range(9, len(data), 41):
        try:
            found = np.asarray(tiffs.read_tiff(io.BytesIO(data[:cut])))
        except Exception:  # pack makes one error of all of them
            continue
        assert np.array_equal(found, stack)
