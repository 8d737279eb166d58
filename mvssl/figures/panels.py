"""How the samples of one column or of one view are drawn.

in   a batch [n, ...] of one column or view: images, signals, spectrograms or vectors
out  a `Panel`, which draws any of its rows into matplotlib's axes

Images are drawn as `mvssl.figures.pixels` says, signals as lines over time, spectrograms with their axes, and vectors
as bars. More than three channels of a signal get a lane each. A long vector is drawn as a grid of coloured cells.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from torch import Tensor

from mvssl.data import Batch
from mvssl.figures.pixels import find_rgb_bands, fits_pixels, is_measured, percentile_range, rgb_pixels
from mvssl.views import Spectrogram, View, ViewSet

MAX_BARS = 64  # features of a vector that is drawn as bars
MAX_SHARED = 3  # channels that share one scale
MAX_LABELS = 12  # lanes that have a label
MAX_VALUES = 1_000_000  # values that a scale is computed from
FONT_SIZE = 5  # points
WIDE = 1.8  # width of lines and spectrograms
COLUMN = " column"
TICKS = (125, 250, 500, 1000, 2000, 4000, 8000, 16000)  # Hz


class Panel(NamedTuple):
    """One column of a sheet. `draw_row(axes, row, last)` draws a sample; the last row has the axis of time."""

    title: str
    width: float  # in heights of a row
    draw_row: Callable[[Axes, int, bool], None]
    note: str = ""  # how to read it, for the caption
    span: str = ""  # lowest and highest number of its colours or bars
    label: str = ""  # its name in the caption; empty if the caption leaves it out
    height: float = 1.0  # in ordinary rows
    present: Tensor | None = None  # bool [n]: which samples have it; None: all
    pixels: Tensor | None = None  # [n, 3, h, w] in [0, 1], if the rows are plain images

    def draw(self, axes: Axes, row: int, last: bool) -> None:
        """Draw a sample, or the word "absent" if the sample lacks it."""
        if self.present is None or bool(self.present[row]):
            self.draw_row(axes, row, last)
            return
        axes.text(0.5, 0.5, "absent", fontsize=FONT_SIZE, color="0.5", ha="center", transform=axes.transAxes)
        _hide_axes(axes)


def column_panel(views: ViewSet, column: str, batch: Batch, rate: float | None = None) -> Panel:
    """Return the panel of a stored column; `rate` is its samples per second.

    The first view of the column knows whether [n, h, w] are images of one channel and what its channels are called.
    """
    view = next(views.view(name) for name in views.names if views.source_of(name) == column)
    stored, names = batch.columns[column], view.column_bands
    x = view.with_channels(stored)
    measured = is_measured(stored, column, *names)
    with_span = measured and (stored.dim() == 3 or stored.shape[1] == 1)  # the caption has its range in stored units
    if x.dim() == 4 and not stored.is_floating_point() and not with_span:
        x = x / 255
    panel = draw_as_panel(f"{column}\n{COLUMN.strip()}", x, names=names, rate=rate, measured=measured)
    return panel._replace(label=column + COLUMN, present=batch.present.get(column))


def view_panel(
    views: ViewSet, name: str, x: Tensor, batch: Batch, *, draw: str = "", rate: float | None = None
) -> Panel:
    """Return the panel of `x`, which view `name` made of a batch; `draw` says which draw, for the title.

    `rate` is the column's samples per second. A view with cropped or resampled time has an axis in samples.
    """
    view, column = views.view(name), batch.columns[views.source_of(name)]
    geometry = views.view(views.leader_of(name)).geometry
    cropped = geometry is not None and geometry.crop is not None
    measured = is_measured(column, name, views.source_of(name), *view.bands)
    rate = None if cropped or x.shape[-1] != column.shape[-1] else rate
    panel = draw_as_panel(f"{name}\n{draw}", x, view, names=view.bands, rate=rate, measured=measured)
    return panel._replace(present=batch.present.get(views.source_of(name)))


def draw_as_panel(
    title: str,
    x: Tensor,
    view: View | None = None,
    *,
    names: Sequence[str] = (),
    rate: float | None = None,
    measured: bool = False,
) -> Panel:
    """Return the panel of a batch [n, ...] of a column, or of what `view` made of a column.

    `names` are those of its channels, `rate` is its samples per second. `measured` gives one channel a colour map.
    """
    if view is not None and x.dim() == 4 and not (measured and x.shape[1] == 1):
        pixels = view.to_rgb(x)
        if pixels is not None:
            return _image_panel(title, pixels.cpu())._replace(note=view.shows)
    x = x.float().cpu()
    if view is not None and view.spectrogram is not None:
        return _spectrogram_panel(title, x, view.spectrogram, view.shows)
    if x.dim() == 4:
        return _bands_panel(title, x, names, measured)
    return _signal_panel(title, x, names, rate) if x.dim() == 3 else _vector_panel(title, x)


def _image_panel(title: str, pixels: Tensor) -> Panel:
    def draw_row(axes: Axes, row: int, last: bool) -> None:
        axes.imshow(pixels[row].permute(1, 2, 0).numpy(), interpolation="nearest")
        _hide_axes(axes)

    width = min(3.0, max(1.0, pixels.shape[3] / pixels.shape[2]))
    return Panel(title, width, draw_row, pixels=pixels)


def _bands_panel(title: str, x: Tensor, names: Sequence[str], measured: bool) -> Panel:
    """Images of any number of bands; two bands are drawn side by side."""
    count, labels = x.shape[1], _channel_names(names, x.shape[1])
    if count == 2:
        pixels = torch.cat([rgb_pixels(band[:, None]) for band in x.unbind(1)], 3)
        return _image_panel(f"{title}: {' | '.join(labels)}", pixels)
    panel = _image_panel(title, rgb_pixels(x, names, measured))
    if count == 1:
        note, span = "dark is low, yellow high", _format_range(*percentile_range(x))
        return panel._replace(note=note, span=span) if measured else panel
    bands = [labels[k] for k in (find_rgb_bands(names, count) if count > 3 else range(count))]
    note = f"false colour: red, green, blue are bands {', '.join(bands)}, each from its 1st to its 99th percentile"
    if count > 3:
        return panel._replace(title=f"{title}: {' '.join(bands)}", note=note)
    return panel if fits_pixels(x) else panel._replace(note=note)


def _signal_panel(title: str, x: Tensor, names: Sequence[str], rate: float | None) -> Panel:
    """A line for each channel of signals [n, c, t]: few on one scale, more in lanes; all rows have one layout."""
    x, labels = x.nan_to_num(0.0), _channel_names(names, x.shape[1])
    end = x.shape[2] / rate if rate else x.shape[2]
    time, unit = torch.linspace(0, end, x.shape[2] + 1)[:-1].numpy(), "s" if rate else "samples"
    if x.shape[1] > MAX_SHARED:
        return _lane_panel(title, x, labels, time, unit)
    low, high = _value_range(x)
    margin = 0.05 * max(high - low, 1e-6)

    def draw_row(axes: Axes, row: int, last: bool) -> None:
        for k, channel in enumerate(x[row]):
            axes.plot(time, channel.numpy(), linewidth=0.5, color=colormaps["tab10"](k), label=labels[k])
        axes.set(xlim=(0, end), ylim=(low - margin, high + margin))
        axes.axhline(0.0, color="0.8", linewidth=0.4, zorder=0)
        _style_axes(axes, unit, last)
        if len(labels) > 1 or names:
            axes.legend(fontsize=FONT_SIZE, ncols=3, frameon=False, loc="upper right", handlelength=1, borderpad=0)

    return Panel(title, WIDE, draw_row, "values over time, all rows on one scale")


def _lane_panel(title: str, x: Tensor, labels: list[str], time: Any, unit: str) -> Panel:
    """A lane for each channel of signals [n, c, t], the first on top, with its own scale and its label at the left."""
    lanes = []
    for k, channel in enumerate(x.unbind(1)):
        low, high = _value_range(channel)
        lanes.append(len(labels) - 1 - k + 0.05 + 0.9 * (channel - low) / max(high - low, 1e-6))
    labelled = range(0, len(labels), math.ceil(len(labels) / MAX_LABELS))

    def draw_row(axes: Axes, row: int, last: bool) -> None:
        for k, lane in enumerate(lanes):
            axes.plot(time, lane[row].numpy(), linewidth=0.5, color=colormaps["tab10"](k % 10))
            axes.axhline(k, color="0.85", linewidth=0.3, zorder=0)
        axes.set(xlim=(0, time[-1] + time[1]), ylim=(0, len(lanes)))
        _style_axes(axes, unit, last)
        axes.set_yticks([len(labels) - 0.5 - k for k in labelled], [labels[k] for k in labelled])
        axes.tick_params(axis="y", length=0)

    note = "a lane for each channel, each on its own scale, the same in all rows"
    return Panel(title, WIDE, draw_row, note, height=min(2.0, max(1.0, len(labels) / 6)))


def _spectrogram_panel(title: str, x: Tensor, extent: Spectrogram, shows: str) -> Panel:
    """The first channel of log-mel spectrograms [n, c, mels, frames], low frequencies at the bottom."""
    mels, ends = x.shape[2], (extent.low, extent.high)
    low, high = _value_range(x)
    ticks = [hertz for hertz in TICKS if ends[0] < hertz <= ends[1]][-4:]
    bottom, top = (math.log1p(hertz / 700) for hertz in ends)  # the mel scale up to a factor
    heights = [mels * (math.log1p(hertz / 700) - bottom) / (top - bottom) for hertz in ticks]

    def draw_row(axes: Axes, row: int, last: bool) -> None:
        box, values = (0, extent.seconds, 0, mels), x[row, 0].numpy()
        axes.imshow(values, cmap="magma", origin="lower", aspect="auto", extent=box, vmin=low, vmax=high)
        _style_axes(axes, "s", last)
        axes.set_yticks(heights, [f"{hertz / 1000:g}k" if hertz >= 1000 else str(hertz) for hertz in ticks])

    note = "spectrogram, hertz upwards, bright is loud"
    return Panel(title, WIDE, draw_row, f"{note}; {shows}" if shows else note)


def _vector_panel(title: str, x: Tensor) -> Panel:
    """Bars from zero, or a grid of cells for many features."""
    x = x.reshape(len(x), -1).nan_to_num(0.0)
    d = x.shape[1]
    extreme = max(*(abs(limit) for limit in _value_range(x)), 1e-6)
    signed = bool(x.amin() < 0)
    low = -extreme if signed else 0
    width = grid_width(d)
    height = math.ceil(d / width)

    def draw_bars(axes: Axes, row: int, last: bool) -> None:
        axes.bar(range(d), x[row].tolist(), width=0.8, color="0.35")
        axes.set_ylim(low, extreme)
        _hide_axes(axes)
        axes.set_box_aspect(1)

    def draw_grid(axes: Axes, row: int, last: bool) -> None:
        cells = torch.full((width * height,), torch.nan)
        cells[:d] = x[row]
        colour_map = "RdBu_r" if signed else "viridis"
        axes.imshow(cells.view(-1, width).numpy(), cmap=colour_map, vmin=low, vmax=extreme, interpolation="nearest")
        axes.set(xlim=(-1.5, width + 0.5), ylim=(height + 0.5, -1.5))  # a gap between the grids of two rows
        _hide_axes(axes)

    title, span = f"{title}: {d} features", _format_range(low, extreme)
    if d <= MAX_BARS:
        return Panel(title, 1.0, draw_bars, "a bar for each feature, all on one scale", span)
    colour = "blue is below 0, red above" if signed else "dark is 0, yellow high"
    return Panel(title, 1.0, draw_grid, f"features in rows; {colour}", span)


def grid_width(d: int) -> int:
    """Return how many of d features a row shows: a divisor near the root, as of a flattened image, or the root."""
    root = math.sqrt(d)
    divisor = max(n for n in range(1, int(root) + 1) if d % n == 0)
    return divisor if divisor > 0.75 * root else math.ceil(root)


def _channel_names(names: Sequence[str], count: int) -> list[str]:
    return list(names) if len(names) == count else [str(k) for k in range(count)]


def _value_range(x: Tensor) -> tuple[float, float]:
    """The range of nearly all values; a few outliers would make the rest flat."""
    values = x.flatten()[:: 1 + x.numel() // MAX_VALUES]
    return float(values.quantile(0.0005)), float(values.quantile(0.9995))


def _format_range(low: float, high: float) -> str:
    return " to ".join(f"{limit:.0f}" if abs(limit) >= 100 else f"{limit:.3g}" for limit in (low, high))


def _hide_axes(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[], anchor="N")
    axes.spines[:].set_visible(False)


def _style_axes(axes: Axes, unit: str, last: bool) -> None:
    axes.tick_params(labelsize=FONT_SIZE, length=1.5, width=0.4, pad=1, labelbottom=last)
    axes.spines[:].set_linewidth(0.3)
    axes.locator_params(axis="both", nbins=3)
    if last:
        axes.set_xlabel(unit, fontsize=FONT_SIZE, labelpad=1)
