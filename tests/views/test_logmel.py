"""Log-mel spectrograms: the filters and the transform against closed forms, each disturbance by its definition."""

import math
import re
from types import SimpleNamespace

import pytest
import torch

from mvssl.errors import RecipeError
from mvssl.random import Draws
from mvssl.recipe import ViewConfig
from mvssl.views import LogMelView, build_views
from mvssl.views.logmel import FLOOR, cut_windows, mel_filterbank, window_starts

RATE = 8000
PLAIN = {"rate": RATE, "normalize": "none"}


def tone(hertz, n=4, t=RATE):
    return torch.sin(2 * math.pi * hertz * torch.arange(t, dtype=torch.float64) / RATE).float().expand(n, 1, t)


def hiss(n=4, c=1, t=RATE):
    return 0.1 * torch.randn(n, c, t, generator=torch.Generator().manual_seed(0))


def draws(n=4, start=0):
    return Draws(0, torch.arange(start, start + n), scope="view/x")


def view(**options) -> ViewConfig:
    return ViewConfig.model_validate({"from": "sound", "name": "logmel", **PLAIN, **options})


def test_the_scale_is_nearly_hertz_up_to_1000_and_a_logarithm_above():
    edges = mel_filterbank(1, 512, RATE, 0.0, 1000.0)
    centre = 700 * (10 ** (2595 * math.log10(1 + 1000 / 700) / 2 / 2595) - 1)
    assert centre == pytest.approx(390.9, abs=0.1)  # half of 1000 mel lies there
    assert edges.argmax().item() == round(centre * 512 / RATE)


def test_filters_are_the_triangles_of_their_definition():
    mels, n_fft, low, high = 20, 1024, 50.0, 3800.0
    bank = mel_filterbank(mels, n_fft, RATE, low, high)

    def mel(f):
        return 2595 * math.log10(1 + f / 700)

    edges = [700 * (10 ** ((mel(low) + k * (mel(high) - mel(low)) / 21) / 2595) - 1) for k in range(22)]
    for m in range(mels):
        a, b, c = edges[m : m + 3]
        for k in range(n_fft // 2 + 1):
            f = k * RATE / n_fft
            expected = (f - a) / (b - a) if a < f <= b else (c - f) / (c - b) if b < f < c else 0.0
            assert bank[m, k].item() == pytest.approx(expected, abs=1e-5)


def test_between_the_first_centre_and_the_last_the_filters_sum_to_one():
    bank = mel_filterbank(30, 2048, RATE, 0.0, 4000.0)
    first, last = bank[0].argmax() + 1, bank[-1].argmax() - 1
    torch.testing.assert_close(bank.sum(0)[first:last], torch.ones(int(last - first)))


def test_a_tone_has_the_power_of_its_closed_form():
    made = LogMelView((1, RATE), window=256, n_fft=256, hop=64, mels=24, **PLAIN)
    k, n = 40, 256  # 1250 Hz; a Hann window gives n / 4 there and half of it at both neighbours
    power = torch.zeros(129)
    power[k - 1 : k + 2] = torch.tensor([(n / 8) ** 2, (n / 4) ** 2, (n / 8) ** 2])
    expected = (made.bank @ power + FLOOR).log()
    seen = made(tone(k * RATE / n), None)[0, 0, :, 4:-4]  # away from the ends
    near = expected > math.log(FLOOR) + 5
    torch.testing.assert_close(seen[near], expected[near, None].expand(-1, seen.shape[1]), atol=1e-3, rtol=0)
    assert seen[~near].max() < 0


def test_silence_is_the_floor():
    seen = LogMelView((1, RATE), **PLAIN)(torch.zeros(2, 1, RATE), None)
    torch.testing.assert_close(seen, torch.full_like(seen, math.log(FLOOR)))


def test_windows_default_to_25_and_10_milliseconds():
    for rate, padded in ((8000, 256), (16000, 512), (44100, 2048)):
        made = LogMelView((2, rate), rate=rate, normalize="none")
        assert (len(made.window), made.n_fft, made.hop) == (round(rate / 40), padded, round(rate / 100))
        assert made.shape == (2, 64, 101)
        assert made(torch.zeros(3, 2, rate), draws(3)).shape == (3, *made.shape)
    assert LogMelView((RATE,), **PLAIN)(torch.zeros(3, RATE), None).shape == (3, 1, 64, 101)


def test_a_window_has_silence_beyond_the_ends():
    x = torch.arange(1.0, 11).expand(4, 1, 10)
    seen = cut_windows(x, torch.tensor([0, 3, -2, 7]), 5)[:, 0]
    assert seen.tolist() == [[1, 2, 3, 4, 5], [4, 5, 6, 7, 8], [0, 0, 1, 2, 3], [8, 9, 10, 0, 0]]


def test_a_longer_window_shares_the_middle_and_stays_in_the_recording():
    interval = torch.tensor([[0.0, 4.0], [3.0, 4.0], [6.0, 4.0], [-2.0, 4.0], [8.0, 4.0]])
    assert window_starts(interval, 4, 10).tolist() == [0, 3, 6, -2, 8]
    assert window_starts(interval, 8, 10).tolist() == [0, 1, 2, -2, 4]


def test_training_looks_anywhere_and_evaluation_at_the_middle():
    x = torch.zeros(1, 1, RATE)
    x[..., 3900:4100] = 1.0
    made = LogMelView((1, RATE), length=2000, **PLAIN)
    loud = made(x, None)[0, 0].mean(0)
    assert loud.argmax().item() == pytest.approx(1000 / 80, abs=2)
    start = made.geometry.draw(draws(5000)).interval
    assert start.amin() >= 0
    assert start.sum(1).max() <= 1
    assert start[:, 0].mean() == pytest.approx(0.375, abs=0.01)
    assert (start[:, 1] == 0.25).all()


def test_a_shift_moves_the_sound_and_silence_takes_its_place():
    made = LogMelView((1, RATE), shift=0.25, **PLAIN)
    start = made.geometry.draw(draws(64)).interval[:, 0]
    assert -0.25 <= start.min() < -0.2
    assert 0.2 < start.max() <= 0.25
    seen = made(hiss(64), draws(64))[:, 0].mean(1)  # [n, frames]
    quiet = math.log(FLOOR) + 1
    far = start.abs() > 0.03  # beyond a window of the spectrogram
    assert torch.equal((seen[:, 0] < quiet)[far], (start < 0)[far])
    assert torch.equal((seen[:, -1] < quiet)[far], (start > 0)[far])


def test_a_gain_adds_its_decibels_to_every_band():
    x = hiss(64)
    loud, plain = (LogMelView((1, RATE), gain=gain, **PLAIN)(x, draws(64)) for gain in ((-6.0, 6.0), None))
    change = 10 * ((loud.exp() - FLOOR) / (plain.exp() - FLOOR)).log10()
    torch.testing.assert_close(change, change[:, :, 9:10, 9:10].expand_as(change), atol=0.02, rtol=0)
    assert -6 <= change.min() < -5
    assert 5 < change.max() <= 6


def test_noise_has_the_ratio_asked_for():
    x = tone(440)
    made = LogMelView((1, RATE), snr=(20.0, 20.0), **PLAIN)
    noise = made._corrupt(x, made.draw(draws()), draws()) - x
    ratio = x.square().mean((1, 2)) / noise.square().mean((1, 2))
    torch.testing.assert_close(10 * ratio.log10(), torch.full((4,), 20.0), atol=0.3, rtol=0)
    assert not torch.equal(noise[0], noise[1])


def test_masks_blank_times_and_bands():
    x = hiss(200)
    made = LogMelView((1, RATE), time_mask=0.3, freq_mask=0.5, **PLAIN)
    zero = made(x, draws(200))[:, 0] == 0
    times, bands = zero.all(1), zero.all(2)
    assert torch.equal(zero, times[:, None] | bands[:, :, None])
    assert times.double().mean() == pytest.approx(0.15, abs=0.02)
    assert bands.double().mean() == pytest.approx(0.25, abs=0.03)
    assert times.int().diff(dim=1).abs().sum(1).max() <= 2


def test_draws_depend_on_the_sample_and_microphones_share_a_window():
    options = {"shift": 0.1, "gain": [-6, 6], "snr": [10, 30], "freq_mask": 0.2}
    tables = {"a": view(time_mask=0.3, length=6000, count=2, **options)}
    tables["b"] = view(geometry="a", count=2, length=6000)
    views = build_views(tables, {"sound": (1, RATE)})
    x = hiss(8)
    expected = views(SimpleNamespace(columns={"sound": x}, position=torch.arange(8)), 0)
    chosen = torch.tensor([6, 1])
    seen = views(SimpleNamespace(columns={"sound": x[chosen]}, position=chosen), 0)
    for name in views.names:
        torch.testing.assert_close(seen[name], expected[name][chosen], atol=1e-4, rtol=0)
    assert torch.equal((expected["a_1"] == 0).all(2), (expected["b_1"] == 0).all(2))
    assert not torch.equal(expected["a_0"], expected["a_1"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0}, "rate: 0"),
        ({"mels": 128}, "128 are too fine for n_fft: 256 .* band 0"),
        ({"high": 5000}, "high <= 4000"),
        ({"low": 300, "high": 200}, "low < high"),
        ({"length": 100}, "more than half of n_fft: 256"),
        ({"length": 9000}, "at most the column's 8000"),
        ({"window": 512, "n_fft": 256}, "window is at most n_fft"),
        ({"window": -5}, "window: -5"),
        ({"hop": -1}, "hop: -1"),
        ({"shift": 1.0}, "shift"),
        ({"time_mask": 1.0}, "time_mask"),
        ({"freq_mask": -0.1}, "freq_mask"),
        ({"gain": [6, -6]}, "gain: .* no range"),
        ({"snr": [6, -6]}, "snr: .* no range"),
    ],
)
def test_faults_are_refused_with_their_place(options, message):
    with pytest.raises(RecipeError, match=rf"views.x: .*{message}"):
        build_views({"x": view(**options)}, {"sound": (1, RATE)})


@pytest.mark.parametrize("t", [2, 20, 100, 128])
def test_the_advice_for_a_sound_too_short_for_its_windows_works(t):
    with pytest.raises(RecipeError, match=rf"n_fft: 256 samples are too many for a column of {t}:") as told:
        build_views({"x": view()}, {"sound": (1, t)})
    most, least = map(int, re.search(r"at most (\d+) samples .* more than (\d+)", str(told.value)).groups())
    for options, length in (({"window": most, "n_fft": most, "mels": 1}, t), ({}, least + 1)):
        assert build_views({"x": view(**options)}, {"sound": (1, length)})


def test_a_view_and_its_column_agree_on_the_rate():
    from mvssl.recipe import parse_recipe

    tables = {
        "data": {"columns": {"sound": {"field": "wav", "rate": 8000}}},
        "views": {"x": {"from": "sound", "name": "logmel", "rate": 16000}},
        "encoder": {"name": "resnet18"},
        "objective": {"name": "dim"},
        "train": {"steps": 1, "out": "x"},
    }
    with pytest.raises(RecipeError, match=r"views.x.rate: 16000, but the rate of column sound is 8000"):
        parse_recipe(tables)
