"""Views of sound: log-mel spectrograms, made on the device for a full batch.

in   a column [n, c, t] of sound in -1 .. 1 (a wav column, for example), and its rate
out  float32 [n, c, mels, frames], low frequencies first: images, for any encoder of images; normalised

Spectrogram as usual: Hann window, power, triangular filters on the mel scale (Stevens et al., 1937, in the form of
HTK: 2595 log10(1 + f / 700)), logarithm. Masks: SpecAugment, Park et al., 2019, arXiv:1904.08779.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mvssl.distributed.devices import send_constant
from mvssl.errors import RecipeError
from mvssl.random import Draws
from mvssl.views import normalize as normalization
from mvssl.views.base import DrawnView, Geometry, Spectrogram
from mvssl.views.time_crop import TimeCrop, draw_intervals, mask_intervals

FLOOR = 1e-6  # added to the power before the logarithm; the power of a full-scale sine is several hundred


class SoundGeometry(Geometry):
    """Random windows of `share` of a recording, which may lie up to `shift` of it beyond either end, and time masks."""

    def __init__(self, share: float, *, shift: float = 0.0, time_mask: float = 0.0, masks: int = 1):
        if not 0 <= shift < 1:
            raise RecipeError(f"shift: {shift}; give the largest share of the recording, from 0 to below 1")
        if not 0 <= time_mask < 1 or masks < 1:
            raise RecipeError(f"time_mask: {time_mask}, masks: {masks}; give a share from 0 to below 1, and at least 1")
        self.share, self.shift, self.time_mask, self.masks = share, shift, time_mask, masks

    def draw(self, draws: Draws) -> TimeCrop:
        """Return the window of each sample, in shares of the recording, and the masks in it."""
        crop, u = TimeCrop.full(len(draws.position)), draws.uniforms(window=1, shift=1)
        start = torch.from_numpy((1 - self.share) * u["window"][0] + self.shift * (2 * u["shift"][0] - 1))
        interval = torch.stack([start, torch.full_like(start, self.share)], 1)
        masks = draw_intervals(draws, "time_mask", self.masks, 0, self.time_mask) if self.time_mask else crop.masks
        return TimeCrop(interval, masks, longest=self.share)


class LogMelParameters(NamedTuple):
    """What is drawn for the recordings of a batch; None: not an option of the view."""

    start: Tensor | None  # int64 [n], first sample of each window; None: all windows are the full recording
    gain: Tensor | None  # float32 [n, 1, 1], factor of the amplitude
    snr: Tensor | None  # float32 [n, 1, 1], amplitude of the sound divided by that of the noise
    time_masks: Tensor  # [n, k, 2], start and length in shares of the window
    freq_masks: Tensor | None  # [n, k, 2], in shares of the frequency bands


class LogMelView(DrawnView):
    """One view of a column of sound `shape` = (c, t) or (t,); by default nothing is random.

    rate          samples per second of the column
    length        samples of a view, from a random place in training, else from the middle; default the column's
    window, hop   samples in a window of the spectrogram and from one to the next; default 25 ms and 10 ms
    n_fft         samples of a window after padding; default the next power of two
    mels          number of frequency bands between `low` and `high` Hz; high: default half the rate
    shift         largest share of the recording that the window moves beyond an end; silence fills the gap
    gain          range [low, high] in dB of a random change of loudness
    snr           range [low, high] in dB of the ratio of the sound to added white noise
    time_mask     largest share of the time that a mask sets to 0, the mean
    freq_mask     the same for the frequency bands; `masks` is the number of masks of each kind
    normalize     data (measured on the training source), none, or {mean: [...], std: [...]}, a number for each channel
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        rate: float,
        length: int | None = None,
        window: int | None = None,
        n_fft: int | None = None,
        hop: int | None = None,
        mels: int = 64,
        low: float = 0.0,
        high: float | None = None,
        shift: float = 0.0,
        gain: tuple[float, float] | None = None,
        snr: tuple[float, float] | None = None,
        time_mask: float = 0.0,
        freq_mask: float = 0.0,
        masks: int = 1,
        normalize: Literal["data", "none"] | normalization.Numbers = "data",
    ):
        if len(shape) not in (1, 2):
            raise RecipeError(f"a logmel view needs a column [c, t] or [t], not {list(shape)}")
        c, t = (1, *shape)[-2:]
        if not 0 < rate < math.inf:
            raise RecipeError(f"rate: {rate}; give the column's samples per second")
        for name, given in (("window", window), ("hop", hop), ("n_fft", n_fft)):
            if given is not None and given < 1:
                raise RecipeError(f"{name}: {given} samples; give at least 1")
        self.rate, self.recorded, self.length = rate, t, t if length is None else length
        window, self.hop = window or max(2, round(0.025 * rate)), hop or max(1, round(0.01 * rate))
        self.n_fft = n_fft or 1 << (window - 1).bit_length() if window > 0 else 0
        if not 1 < window <= self.n_fft or self.hop < 1:
            raise RecipeError(f"window: {window}, n_fft: {self.n_fft}, hop: {self.hop}; window is at most n_fft")
        if self.n_fft // 2 >= t:
            raise RecipeError(
                f"n_fft: {self.n_fft} samples are too many for a column of {t}: give window and n_fft of at most "
                f"{2 * t - 1} samples and fewer mels, or a column of more than {self.n_fft // 2}"
            )
        if not self.n_fft // 2 < self.length <= t:
            raise RecipeError(
                f"length: {self.length} samples; give more than half of n_fft: {self.n_fft}, at most the column's {t}"
            )
        if not 0 <= freq_mask < 1:
            raise RecipeError(f"freq_mask: {freq_mask}; give a share from 0 to below 1")
        for name, given in (("gain", gain), ("snr", snr)):
            if given is not None and not given[0] <= given[1]:
                raise RecipeError(f"{name}: {list(given)} is no range; give [low, high] in dB")
        self.geometry: SoundGeometry = SoundGeometry(self.length / t, shift=shift, time_mask=time_mask, masks=masks)
        self.gain, self.snr, self.freq_mask, self.masks = gain, snr, freq_mask, masks
        self.spectrogram = Spectrogram(self.length / rate, low, rate / 2 if high is None else high)
        self.shows = "stripes of one colour are masked" if freq_mask or time_mask else ""
        self.window, self.bank = (
            torch.hann_window(window),
            mel_filterbank(mels, self.n_fft, rate, *self.spectrogram[1:]),
        )
        self.mean, self.std = normalization.channel_statistics(normalize, list(range(c)), c)
        self.shape = (c, mels, 1 + self.length // self.hop)

    def draw(self, draws: Draws, placement: TimeCrop | None = None) -> LogMelParameters:
        """Return the parameters of the batch's samples; `placement` is the window of another view."""
        crop = self.geometry.draw(draws) if placement is None else placement
        start = window_starts(crop.interval * self.recorded, self.length, self.recorded)
        return LogMelParameters(
            start if self.length < self.recorded or start.any() else None,
            _draw_factors(draws, "gain", self.gain) if self.gain else None,
            _draw_factors(draws, "snr", self.snr) if self.snr else None,
            crop.masks,
            draw_intervals(draws, "freq_mask", self.masks, 0, self.freq_mask) if self.freq_mask else None,
        )

    def apply(self, column: Tensor, drawn: LogMelParameters | None, draws: Draws | None) -> Tensor:
        """Return the view [n, *shape] of a column [n, c, t]; without parameters that of the recording's middle."""
        x = self.with_channels(column.float())
        if drawn is None or draws is None:
            middle = (x.shape[-1] - self.length) // 2
            return self._compute_spectrogram(x[..., middle : middle + self.length])
        x = x if drawn.start is None else cut_windows(x, drawn.start, self.length)
        x = mask_intervals(self._compute_spectrogram(self._corrupt(x, drawn, draws)), drawn.time_masks)
        return x if drawn.freq_masks is None else mask_intervals(x, drawn.freq_masks, dim=2)

    def with_channels(self, column: Tensor) -> Tensor:
        """Return a column [n, t] as [n, 1, t]."""
        return column if column.dim() == 3 else column[:, None]

    def _corrupt(self, x: Tensor, drawn: LogMelParameters, draws: Draws) -> Tensor:
        if drawn.gain is not None:
            x = x * drawn.gain
        if drawn.snr is not None:
            loudness = x.square().mean((1, 2), keepdim=True).sqrt()
            noise = draws.within("noise", x.device).normal("noise", *x.shape[1:], dtype=torch.float32)
            x = x + loudness / drawn.snr * noise
        return x

    def _compute_spectrogram(self, x: Tensor) -> Tensor:
        n, c, _ = x.shape
        window, bank = send_constant(self.window, x.device), send_constant(self.bank, x.device)
        waves = torch.stft(x.flatten(0, 1), self.n_fft, self.hop, len(window), window, return_complex=True)
        power = waves.real.square() + waves.imag.square()  # [n * c, frequencies, frames]
        return normalization.normalize_channels((bank @ power + FLOOR).log().unflatten(0, (n, c)), self.mean, self.std)


def _draw_factors(draws: Draws, name: str, decibels: tuple[float, float]) -> Tensor:
    """Return factors of the amplitude, [n, 1, 1], with levels uniform in a range of dB."""
    low, high = decibels
    return (10 ** ((low + (high - low) * draws.uniform(name, 1)) / 20)).float()[..., None]


def window_starts(interval: Tensor, length: int, t: int) -> Tensor:
    """Return the starts, int64 [n], of windows of `length` with the middle of `interval` [n, 2] (start, length).

    All numbers are samples. A window that is longer than the interval stays inside the recording of `t` samples, or
    at most as far outside as the interval.
    """
    begin, end = interval[:, 0], interval.sum(1)
    start = (begin + end - length) / 2
    return start.maximum(begin.clamp(max=0)).minimum((end - length).clamp(min=t - length)).round().long()


def cut_windows(x: Tensor, start: Tensor, length: int) -> Tensor:
    """Return [n, c, length] of x [n, c, t] from sample `start` (int64 [n]) of each row, padded with 0."""
    t = x.shape[-1]
    place = start[:, None] + torch.arange(length, device=x.device)
    inside = x.gather(2, place.clamp(0, t - 1)[:, None].expand(-1, x.shape[1], -1))
    return inside * ((place >= 0) & (place < t))[:, None]


def mel_filterbank(mels: int, n_fft: int, rate: float, low: float, high: float) -> Tensor:
    """Return triangles [mels, n_fft // 2 + 1] of height 1, at equal steps of the mel scale. Raises `RecipeError`."""
    if mels < 1 or not 0 <= low < high <= rate / 2:
        raise RecipeError(f"mels: {mels} from low: {low} to high: {high} Hz; give 0 <= low < high <= {rate / 2:g}")
    ends = 2595 * torch.log10(1 + torch.tensor([low, high], dtype=torch.float64) / 700)
    steps = torch.linspace(float(ends[0]), float(ends[1]), mels + 2, dtype=torch.float64)
    edges = 700 * (10 ** (steps / 2595) - 1)  # Hz
    frequency = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate / n_fft
    begin, centre, end = (edges[k : mels + k, None] for k in range(3))
    bank = torch.minimum((frequency - begin) / (centre - begin), (end - frequency) / (end - centre)).clamp(min=0)
    empty = (bank.sum(1) == 0).nonzero()[:, 0].tolist()
    if empty:
        raise RecipeError(
            f"mels: {mels} are too fine for n_fft: {n_fft} at {rate:g} samples per second: band {empty[0]} lies "
            "between two of its frequencies; give fewer mels or a larger n_fft"
        )
    return bank.float()
