"""How one column or one view of some samples is drawn in a contact sheet.

in   a batch of one column or view: images, signals, spectrograms or vectors
out  a `Panel`, which draws any of its rows into matplotlib's axes

Bytes of one channel are a gray picture; measured numbers of one channel, and bytes that are called depth or infrared,
have a perceptual colour map. More than three bands become a false colour of the red, green and blue among them where
names tell, else of the last, the middle and the first. Signals are lines over time, each in a lane of its own where
there are more than three; vectors bars, long ones a field. What no eye knows at first sight stands in `note`.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from torch import Tensor

from mvssl.views import Spectrogram, View

LONG = 64  # features that still are bars
FEW = 3  # channels that still are told apart on one scale
LABELS = 12  # lanes that still can be named
MEASURED = {"depth", "disparity", "range", "height", "dem", "ir", "nir", "swir", "lwir", "infrared", "thermal"}
# what is red, green and blue on its own, on Sentinel-2 and on Landsat 8 and 9; the latter's blue is B2
PRIMARY = (("red", "b04", "b4", "r"), ("green", "b03", "b3", "g"), ("blue", "b02", "b2", "b"))
SMALL = 5  # points


class Panel(NamedTuple):
    """A column of the sheet: `show(axes, row, last)` shows a row, with the axis of time where it is the last."""

    title: str
    wide: float  # in heights
    show: Callable[[Axes, int, bool], None]
    note: str = ""  # how to read it, for the caption
    span: str = ""  # from which number to which its colours or bars go
    label: str = ""  # what the caption calls it; none, where it is like another
    tall: float = 1.0  # in ordinary rows
    present: Tensor | None = None  # bool [n], which rows have it; default all
    pixels: Tensor | None = None  # [n, 3, h, w] in [0, 1], if the rows are plain pictures

    def draw(self, axes: Axes, row: int, last: bool) -> None:
        """A row, or the word that it is absent."""
        if self.present is None or bool(self.present[row]):
            self.show(axes, row, last)
            return
        axes.text(0.5, 0.5, "absent", fontsize=SMALL, color="0.5", ha="center", transform=axes.transAxes)
        _bare(axes)


def panel(
    title: str,
    x: Tensor,
    view: View | None = None,
    *,
    names: Sequence[str] = (),
    rate: float | None = None,
    measured: bool = False,
) -> Panel:
    """The panel of a batch [n, ...] of a column, or of what `view` made of one.

    `names` are those of its channels, `rate` its samples per second; `measured` says that a single channel is no gray
    picture.
    """
    if view is not None and x.dim() == 4 and not (measured and x.shape[1] == 1):
        shown = view.to_rgb(x)
        if shown is not None:
            return _pictures(title, shown.cpu())._replace(note=view.shows)
    x = x.float().cpu()
    if view is not None and view.spectrogram is not None:
        return _spectrograms(title, x, view.spectrogram, view.shows)
    if x.dim() == 4:
        return _bands(title, x, list(names), measured)
    return _lines(title, x, names, rate) if x.dim() == 3 else _vectors(title, x)


def is_measured(column: Tensor, *names: str) -> bool:
    """Whether a column of one channel holds numbers rather than a picture: floats, or bytes with such a name."""
    return column.is_floating_point() or bool(MEASURED & set(re.split(r"[^a-z]+", " ".join(names).lower())))


def _pictures(title: str, x: Tensor) -> Panel:
    def show(axes: Axes, row: int, last: bool) -> None:
        axes.imshow(x[row].permute(1, 2, 0).numpy(), interpolation="nearest")
        _bare(axes)

    return Panel(title, min(3.0, max(1.0, x.shape[3] / x.shape[2])), show, pixels=x)


def _bands(title: str, x: Tensor, names: list[str], measured: bool) -> Panel:
    """Images of any number of bands; two stand side by side."""
    count = x.shape[1]
    if count == 2:
        title += f": {' | '.join(_named(names, 2))}"
        return _pictures(title, torch.cat([colours(band[:, None]) for band in x.unbind(1)], 3))
    shown = _pictures(title, colours(x, names, measured))
    if count == 1 and measured:
        return shown._replace(note="dark is low, yellow high", span=_span(*_limits_of(x)))
    if count == 1:
        return shown
    bands = [_named(names, count)[k] for k in (primaries(names, count) if count > FEW else range(count))]
    if count > FEW:
        shown = shown._replace(title=f"{title}: {' '.join(bands)}")
    stretched = count > FEW or not _fits(x)
    note = f"false colour: red, green, blue are bands {', '.join(bands)}, each from its 1st to its 99th percentile"
    return shown._replace(note=note) if stretched else shown


def _named(names: Sequence[str], count: int) -> list[str]:
    return list(names) if len(names) == count else [str(k) for k in range(count)]


def _span(low: float, high: float) -> str:
    return " to ".join(f"{limit:.0f}" if abs(limit) >= 100 else f"{limit:.3g}" for limit in (low, high))


def primaries(names: Sequence[str], count: int) -> list[int]:
    """Which of `count` bands are shown as red, green and blue."""
    known = {name.lower(): k for k, name in enumerate(names)} if len(names) == count else {}
    found = [next((known[word] for word in words if word in known), None) for words in PRIMARY]
    return [count - 1, count // 2, 0] if None in found else found  # pyright: ignore[reportReturnType]


def colours(x: Tensor, names: Sequence[str] = (), measured: bool = False) -> Tensor:
    """Images [n, c, h, w] as [n, 3, h, w] in [0, 1]: as they are where they fit, else stretched over the batch."""
    count, fits = x.shape[1], _fits(x)
    if count >= 3:
        kept = x if count == 3 else x[:, primaries(names, count)]
        return kept if count == 3 and fits else torch.stack([_stretch(band) for band in kept.unbind(1)], 1)
    gray = x[:, 0] if fits and not measured else _stretch(x[:, 0])
    if not measured:
        return gray[:, None].expand(-1, 3, -1, -1)
    table = torch.tensor(colormaps["viridis"].resampled(256)(range(256)), dtype=torch.float32)[:, :3]
    return table[(gray * 255).round().long()].permute(0, 3, 1, 2)


def _stretch(band: Tensor) -> Tensor:
    """One band over the batch to [0, 1], its 1st to its 99th percentile; what is not finite becomes 0."""
    low, high = _limits_of(band)
    return ((band - low) / max(high - low, 1e-12)).nan_to_num(0.0).clamp(0, 1)


def _limits_of(band: Tensor) -> tuple[float, float]:
    """The 1st and the 99th percentile of what is finite."""
    finite = band[band.isfinite()][:1_000_000]
    return (float(finite.quantile(0.01)), float(finite.quantile(0.99))) if len(finite) else (0.0, 0.0)


def _fits(x: Tensor) -> bool:
    return bool(x.amin() >= 0 and x.amax() <= 1)


def _limits(x: Tensor) -> tuple[float, float]:
    """What nearly all values lie between; few outliers would make the rest flat."""
    some = x.flatten()[:: 1 + x.numel() // 1_000_000]
    return float(some.quantile(0.0005)), float(some.quantile(0.9995))


def _lines(title: str, x: Tensor, names: Sequence[str], rate: float | None) -> Panel:
    """A line for each channel of signals [n, c, t]: few on one scale, more in lanes; all rows alike."""
    finite, named = x.nan_to_num(0.0), _named(names, x.shape[1])
    end = x.shape[2] / rate if rate else x.shape[2]
    time, unit = torch.linspace(0, end, x.shape[2] + 1)[:-1].numpy(), "s" if rate else "samples"
    if x.shape[1] > FEW:
        return _lanes(title, finite, named, time, unit)
    low, high = _limits(finite)
    margin = 0.05 * max(high - low, 1e-6)

    def show(axes: Axes, row: int, last: bool) -> None:
        for k, channel in enumerate(finite[row]):
            axes.plot(time, channel.numpy(), linewidth=0.5, color=colormaps["tab10"](k), label=named[k])
        axes.set(xlim=(0, end), ylim=(low - margin, high + margin))
        axes.axhline(0.0, color="0.8", linewidth=0.4, zorder=0)
        _framed(axes, unit, last)
        if len(named) > 1 or names:
            axes.legend(fontsize=SMALL, ncols=3, frameon=False, loc="upper right", handlelength=1, borderpad=0)

    return Panel(title, 1.8, show, "values over time, all rows on one scale")


def _lanes(title: str, x: Tensor, names: list[str], time: Any, unit: str) -> Panel:
    """A lane for each channel of signals [n, c, t], the first on top, named at its left, on its own scale."""
    lanes = []
    for k, channel in enumerate(x.unbind(1)):
        low, high = _limits(channel)
        lanes.append(len(names) - 1 - k + 0.05 + 0.9 * (channel - low) / max(high - low, 1e-6))
    marked = range(0, len(names), math.ceil(len(names) / LABELS))

    def show(axes: Axes, row: int, last: bool) -> None:
        for k, lane in enumerate(lanes):
            axes.plot(time, lane[row].numpy(), linewidth=0.5, color=colormaps["tab10"](k % 10))
            axes.axhline(k, color="0.85", linewidth=0.3, zorder=0)
        axes.set(xlim=(0, time[-1] + time[1]), ylim=(0, len(lanes)))
        _framed(axes, unit, last)
        axes.set_yticks([len(names) - 0.5 - k for k in marked], [names[k] for k in marked])
        axes.tick_params(axis="y", length=0)

    note = "a lane for each channel, each on its own scale, the same in all rows"
    return Panel(title, 1.8, show, note, tall=min(2.0, max(1.0, len(names) / 6)))


def _spectrograms(title: str, x: Tensor, axes: Spectrogram, shows: str) -> Panel:
    """The first channel of log-mel spectrograms, low frequencies at the bottom."""
    mels, seconds, ends = x.shape[2], axes.seconds, (axes.low, axes.high)
    low, high = _limits(x)
    ticks = [f for f in (125, 250, 500, 1000, 2000, 4000, 8000, 16000) if ends[0] < f <= ends[1]][-4:]

    def height(hertz: float) -> float:
        bottom, top = (math.log1p(f / 700) for f in ends)
        return mels * (math.log1p(hertz / 700) - bottom) / (top - bottom)

    def show(axes: Axes, row: int, last: bool) -> None:
        box, values = (0, seconds, 0, mels), x[row, 0].numpy()
        axes.imshow(values, cmap="magma", origin="lower", aspect="auto", extent=box, vmin=low, vmax=high)
        _framed(axes, "s", last)
        axes.set_yticks([height(f) for f in ticks], [f"{f / 1000:g}k" if f >= 1000 else str(f) for f in ticks])

    note = "spectrogram, hertz upwards, bright is loud"
    return Panel(title, 1.8, show, f"{note}; {shows}" if shows else note)


def columns_of(d: int) -> int:
    """In how many columns to lay out d numbers: a divisor near the root, as an image that was flattened had, or it."""
    root = math.sqrt(d)
    divisor = max(n for n in range(1, int(root) + 1) if d % n == 0)
    return divisor if divisor > 0.75 * root else math.ceil(root)


def _vectors(title: str, x: Tensor) -> Panel:
    """Bars about zero, or, of many features, a field with a row of them under the other."""
    x = x.reshape(len(x), -1).nan_to_num(0.0)
    d = x.shape[1]
    extreme = max(*(abs(limit) for limit in _limits(x)), 1e-6)
    side = columns_of(d)
    signed = bool(x.amin() < 0)

    def bars(axes: Axes, row: int, last: bool) -> None:
        axes.bar(range(d), x[row].tolist(), width=0.8, color="0.35")
        axes.set_ylim(-extreme if signed else 0, extreme)
        _bare(axes)
        axes.set_box_aspect(1)

    def field(axes: Axes, row: int, last: bool) -> None:
        whole = torch.full((side * math.ceil(d / side),), torch.nan)
        whole[:d] = x[row]
        low, table = (-extreme, "RdBu_r") if signed else (0, "viridis")
        axes.imshow(whole.view(-1, side).numpy(), cmap=table, vmin=low, vmax=extreme, interpolation="nearest")
        axes.set(xlim=(-1.5, side + 0.5), ylim=(math.ceil(d / side) + 0.5, -1.5))  # else two fields look like one
        _bare(axes)

    scale = _span(-extreme if signed else 0, extreme)
    if d <= LONG:
        return Panel(f"{title}: {d} features", 1.0, bars, "a bar for each feature, all on one scale", scale)
    colour = "blue is below 0, red above" if signed else "dark is 0, yellow high"
    return Panel(f"{title}: {d} features", 1.0, field, f"features in rows; {colour}", scale)


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[], anchor="N")
    axes.spines[:].set_visible(False)


def _framed(axes: Axes, unit: str, last: bool) -> None:
    axes.tick_params(labelsize=SMALL, length=1.5, width=0.4, pad=1, labelbottom=last)
    axes.spines[:].set_linewidth(0.3)
    axes.locator_params(axis="both", nbins=3)
    if last:
        axes.set_xlabel(unit, fontsize=SMALL, labelpad=1)
