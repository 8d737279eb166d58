"""Each way of writing sound against other readers and writers, and files that are cut or damaged."""

import io
import struct

import numpy as np
import pytest
from scipy.io import wavfile
from shard_making import pcm, write_tar

from mvssl.data import SampleError, open_shards
from mvssl.data.decoding import decode_field
from mvssl.data.decoding.arrays import fit_length
from mvssl.data.decoding.wav import read_wav, resample
from mvssl.data.shards.verification import verify_shards
from mvssl.errors import DataError, RecipeError
from mvssl.recipe import Column


def column(**options) -> Column:
    return Column.model_validate({"field": "wav", "rate": 8000, **options})


def chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def riff(*chunks: bytes) -> bytes:
    return chunk(b"RIFF", b"WAVE" + b"".join(chunks))


FORMAT = chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16))
SOUND = chunk(b"data", np.arange(6, dtype="<i2").tobytes())


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_pcm_of_any_width_is_scaled_to_full_scale_one(width, channels):
    data, values = pcm(width, channels)
    found, rate = read_wav(data)
    assert (rate, found.shape, found.dtype) == (8000, (channels, 50), np.float32)
    np.testing.assert_allclose(found, values / 2.0 ** (8 * width - 1), atol=2.0**-24)
    assert found.min() == -1
    assert found.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_floats_come_as_they_are(dtype):
    values, file = np.random.default_rng(0).normal(size=(40, 2)).astype(dtype), io.BytesIO()
    wavfile.write(file, 44100, values)
    found, rate = read_wav(file.getvalue())
    assert rate == 44100
    assert np.array_equal(found, values.T.astype(np.float32))


def test_the_extensible_format_and_unknown_chunks_are_read():
    guid = struct.pack("<H", 1) + bytes.fromhex("000000001000800000aa00389b71")
    extensible = chunk(b"fmt ", struct.pack("<HHIIHHHHI", 0xFFFE, 1, 8000, 16000, 2, 16, 22, 16, 4) + guid)
    data = riff(chunk(b"LIST", b"odd"), extensible, chunk(b"fact", b"1234"), SOUND, chunk(b"id3 ", b"late"))
    assert np.array_equal(read_wav(data)[0][0] * 2**15, np.arange(6))


def test_a_length_that_was_never_filled_in_means_to_the_end():
    data = riff(FORMAT, b"data" + struct.pack("<I", 0xFFFFFFFF) + np.arange(9, dtype="<i2").tobytes())
    assert np.array_equal(read_wav(data)[0][0] * 2**15, np.arange(9))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"RIFF\0\0\0\0AVI garbage", "no RIFF WAVE"),
        (pcm(2)[0][:-30], "cut short: 70 bytes of sound where the header says 100"),
        (riff(FORMAT), "no data chunk"),
        (riff(FORMAT, chunk(b"data", b"")), "no samples"),
        (riff(SOUND, FORMAT), "before their format"),
        (riff(chunk(b"fmt ", b"1234"), SOUND), "format chunk is cut short"),
        (riff(chunk(b"fmt ", struct.pack("<HHIIHH", 0x55, 1, 8000, 1000, 1, 0)), SOUND), "format 85 with 0 bits"),
        (riff(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 0, 8000, 1000, 1, 16)), SOUND), "0 channels"),
        (riff(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, 2**32 - 5, 1000, 1, 16)), SOUND), "samples per second"),
    ],
)
def test_damaged_sounds_are_bad_samples_with_a_reason(data, message):
    with pytest.raises(SampleError, match=message):
        decode_field(column(), "wav", data)


def test_resampling_keeps_a_tone_and_removes_one_above_the_new_limit():
    t = np.arange(3200) / 16000
    tone, high = (np.sin(2 * np.pi * f * t)[None].astype(np.float32) for f in (1000, 6000))
    expected = np.sin(2 * np.pi * 1000 * np.arange(1600) / 8000)
    inner = slice(100, 1500)
    assert np.abs(resample(tone, 16000, 8000)[0, inner] - expected[inner]).max() < 0.01
    assert np.abs(resample(high, 16000, 8000)[0, inner]).max() < 0.01
    assert resample(tone, 16000, 44100).shape == (1, 8820)
    assert resample(tone, 16000, 16000) is tone


def test_a_column_has_one_rate_one_length_and_one_channel_where_asked():
    stereo, values = pcm(2, channels=2, t=100, rate=16000)
    found = decode_field(column(mode="mono", rate=16000, length=60), "a.wav", stereo)
    np.testing.assert_allclose(found, values.mean(0, keepdims=True)[:, :60] / 2**15, atol=1e-6)
    longer = decode_field(column(rate=16000, length=130), "wav", stereo)
    assert longer.shape == (2, 130)
    assert np.abs(longer[:, 100:]).max() == 0
    assert decode_field(column(), "wav", stereo).shape == (2, 50)


def test_a_length_fits_recordings_of_numbers_too_and_leaves_images_alone():
    buffer = io.BytesIO()
    np.save(buffer, np.arange(20.0).reshape(10, 2))
    table = Column.model_validate({"field": "npy", "channels_last": True, "length": 12})
    assert decode_field(table, "npy", buffer.getvalue()).tolist()[1] == [*range(1, 20, 2), 0, 0]
    assert np.array_equal(fit_length(np.arange(5), 3), [0, 1, 2])


def shard(folder, *sounds: bytes):
    return write_tar(folder / "a.tar", [(f"{i}.wav", sound) for i, sound in enumerate(sounds)])


def test_recordings_of_one_set_need_a_rate_and_a_length(tmp_path):
    shard(tmp_path, pcm(2, t=50)[0], pcm(2, t=60)[0], pcm(2, t=70)[0])
    with pytest.raises(RecipeError, match=r"columns\.sound\.rate"):
        open_shards("a.tar", tmp_path, {"sound": Column(field="wav")})
    with pytest.raises(DataError, match=r"differ in shape .*length: N"):
        open_shards("a.tar", tmp_path, {"sound": column()})
    source = open_shards("a.tar", tmp_path, {"sound": column(length=64)})
    assert source.shapes == {"sound": (1, 64)}
    assert source[2]["sound"].dtype == np.float32


@pytest.mark.parametrize(("field", "mode"), [("png", "mono"), ("wav", "gray")])
def test_a_mode_of_the_other_kind_is_refused(tmp_path, field, mode):
    shard(tmp_path, pcm(2)[0])
    with pytest.raises(RecipeError, match=f"mode: {mode}; images take rgb or gray, sound takes mono"):
        open_shards("a.tar", tmp_path, {"x": Column.model_validate({"field": field, "mode": mode, "rate": 8000})})


def test_verify_finds_a_sound_that_is_cut_short(tmp_path):
    seen = verify_shards(str(shard(tmp_path, pcm(2)[0], pcm(3, 2)[0][:-1])), progress=False)
    assert [(fault.key, fault.field) for fault in seen.faults] == [("1", "wav")]
    assert "cut short" in seen.faults[0].reason


def test_resampling_that_would_need_gigabytes_is_refused():
    head = b"RIFF" + bytes(4) + b"WAVEfmt " + (16).to_bytes(4, "little") + b"\1\0\1\0" + (1).to_bytes(4, "little")
    data = head + bytes(4) + b"\2\0\x10\0data" + (20_000).to_bytes(4, "little") + bytes(20_000)
    with pytest.raises(SampleError, match="480,000,000 samples"):
        decode_field(Column(field="wav", rate=48_000), "wav", data)
