"""Samples as they would look: images as data URIs, signals and vectors as small SVG drawings.

in   a view's output [n, c, h, w], [n, c, t] or [n, d]
out  per sample a tensor to draw (`look`), and of it an element of the page (`cell`)
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib import colormaps
from PIL import Image
from torch import Tensor

from mvssl.figures.panels import grid_width
from mvssl.figures.pixels import is_measured, rgb_pixels
from mvssl.reporting.html import Html, el
from mvssl.views import ViewSet

LARGEST = 112  # pixels of a picture's longer side; more would not show at the size it has on the page
SMALL = 48  # pixels up to which a picture is kept losslessly and drawn as squares
BARS, TIMES, CHANNELS = 64, 64, 12  # numbers of a vector, places along a signal and its channels that are drawn
SIDE = 200  # user units of a drawing


def look(views: ViewSet, name: str, x: Tensor, column: Tensor) -> Tensor:
    """What a view made of `column` as it would look: images [n, 3, h, w], signals [n, c, t] in [0, 1], vectors."""
    view = views.view(name)
    names = view.bands
    measured = is_measured(column, name, views.source_of(name), *names)
    if x.dim() != 4:
        return numbers(x)
    if view.picture_kind == "spectrogram":
        return heat(x[:, 0].cpu()).flip(2)  # low frequencies at the bottom
    shown = None if measured and x.shape[1] == 1 else view.to_rgb(x)
    return pictures(x, names, measured) if shown is None else shown.cpu()


def stored(views: ViewSet, source: str, column: Tensor) -> Tensor:
    """A column as it would look; the views made of it tell a sound from a vector and name its bands."""
    view = next(views.view(name) for name in views.names if views.source_of(name) == source)
    x = view.with_channels(column)
    if x.dim() != 4:
        return numbers(x)
    names = view.column_bands
    return pictures(x if x.is_floating_point() else x / 255, names, is_measured(column, source, *names))


def pictures(x: Tensor, names: Sequence[str], measured: bool) -> Tensor:
    """Images of any number of bands as [n, 3, h, w]; two bands stand side by side."""
    x = x.float().cpu()
    if x.shape[1] == 2:
        return torch.cat([rgb_pixels(band[:, None]) for band in x.unbind(1)], 3)
    return rgb_pixels(x, names, measured)


def numbers(x: Tensor) -> Tensor:
    """Signals [n, c, t] in [0, 1] and vectors [n, d] in [-1, 1], by what nearly all of these samples lie between.

    Each channel has its own scale. Vectors too long for bars become pictures, a row of numbers under the other.
    """
    x = x.float().cpu().nan_to_num(0.0)
    if x.dim() == 3:
        some = x.transpose(0, 1).flatten(1)[:, :: 1 + x.numel() // 1_000_000]
        low, high = some.quantile(0.002, dim=1)[:, None], some.quantile(0.998, dim=1)[:, None]
        return (x - low) / (high - low).clamp(min=1e-12)
    some = x.flatten()[:: 1 + x.numel() // 1_000_000]
    x = x / some.abs().quantile(0.99).clamp(min=1e-12)
    if x.shape[1] <= BARS:
        return x
    side = grid_width(x.shape[1])
    field = F.pad(x, (0, -x.shape[1] % side)).view(len(x), -1, side)
    return coloured((field + 1) / 2, "RdBu_r") if x.amin() < 0 else coloured(field, "viridis")


def heat(x: Tensor) -> Tensor:
    """Numbers [n, h, w] as colours [n, 3, h, w] from their 1st to their 99th percentile."""
    some = x.flatten()[:: 1 + x.numel() // 1_000_000].nan_to_num(0.0)
    low, high = some.quantile(0.01), some.quantile(0.99)
    return coloured((x - low) / (high - low).clamp(min=1e-12), "magma")


def coloured(x: Tensor, name: str) -> Tensor:
    """Numbers [n, h, w], taken as 0 to 1, as colours [n, 3, h, w] of one of matplotlib's colour maps."""
    table = torch.tensor(colormaps[name].resampled(256)(range(256)), dtype=torch.float32)[:, :3]
    return table[(x.nan_to_num(0.0).clamp(0, 1) * 255).round().long()].permute(0, 3, 1, 2)


def cell(x: Tensor, alt: str) -> Html:
    """One sample: an image [3, h, w] in [0, 1], a signal [c, t], or a vector [d]."""
    if x.dim() == 3:
        return image(x, alt)
    return signal(x, alt) if x.dim() == 2 else bars(x, alt)


def image(x: Tensor, alt: str, largest: int = LARGEST) -> Html:
    """[3, h, w] in [0, 1] as an `img` that holds its own data."""
    h, w = x.shape[1:]
    if max(h, w) > largest:
        sides = [max(1, round(side * largest / max(h, w))) for side in (h, w)]
        x = F.interpolate(x[None].float(), sides, mode="bilinear", antialias=True, align_corners=False)[0]
        h, w = sides
    pixels = (x.float().nan_to_num(0.0).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy()
    small = max(h, w) <= SMALL
    file, kind = io.BytesIO(), "png" if small else "jpeg"
    options: dict[str, Any] = {"optimize": True} if small else {"quality": 88, "subsampling": 0}
    Image.fromarray(pixels).save(file, kind, **options)
    source = f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
    return el("img", src=source, alt=alt, width=w, height=h, class_="squares" if small else None)


def signal(x: Tensor, alt: str) -> Html:
    """[c, t] in [0, 1], each channel a line at a height of its own; a long one as the band between its extremes."""
    rows = x[:CHANNELS].float().nan_to_num(0.0).clamp(0, 1)[None]
    short = rows.shape[2] <= 4 * TIMES
    count = min(TIMES, rows.shape[2])
    ends = [F.adaptive_avg_pool1d(rows, count)] * 2 if short else [
        F.adaptive_max_pool1d(rows, count), -F.adaptive_max_pool1d(-rows, count)
    ]  # fmt: skip
    lane = SIDE / rows.shape[1]
    across = [round(SIDE * k / max(count - 1, 1)) for k in range(count)]
    paths = []
    for number, (above, below) in enumerate(zip(*(end[0].tolist() for end in ends), strict=True)):
        there, back = ([round(lane * (number + 0.95 - 0.9 * value)) for value in side] for side in (above, below))
        places = list(zip(across, there, strict=True))
        d = _relative(places if short else places + list(zip(across, back, strict=True))[::-1])
        paths.append(el("path", d=d if short else f"{d}Z", class_=f"wave c{number % 6}"))
    return el("svg", paths, viewBox=f"0 0 {SIDE} {SIDE}", role="img", aria_label=alt, class_="cell")


def _relative(places: list[tuple[int, int]]) -> str:
    """A path through whole numbers in few bytes: steps from place to place."""
    steps = [(px - qx, py - qy) for (px, py), (qx, qy) in zip(places[1:], places, strict=False)]
    return f"M{places[0][0]} {places[0][1]}l" + " ".join(f"{dx} {dy}" for dx, dy in steps).replace(" -", "-")


def bars(x: Tensor, alt: str) -> Html:
    """[d] in [-1, 1]: its first numbers as bars up and down from a middle line."""
    values = x[:BARS].float().nan_to_num(0.0).clamp(-1, 1).tolist()
    wide = SIDE / max(len(values), 1)
    middle = SIDE // 2
    steps = [(round(k * wide, 1), round(-middle * v)) for k, v in enumerate(values)]
    d = "".join(f"M{px:g} {middle}v{up}h{max(wide - 0.6, 0.5):.1f}v{-up}z" for px, up in steps)
    drawn = el("path", d=f"M0 {middle}H{SIDE}", class_="grid"), el("path", d=d, class_="fill c0")
    return el("svg", drawn, viewBox=f"0 0 {SIDE} {SIDE}", role="img", aria_label=alt, class_="cell")


def over(x: Tensor, colour: Tensor, share: float = 0.55) -> Tensor:
    """Colours [n, 3, h', w'] laid over pictures [n, 3, h, w] turned gray, at the size of the pictures."""
    gray = x.mean(1, keepdim=True)
    laid = F.interpolate(colour, x.shape[2:], mode="nearest")
    return share * laid + (1 - share) * gray.expand_as(laid)


def components(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rows [n, d] on their first `count` principal axes, [n, count], and the share of variance each holds.

    Fewer axes than `count` leave zeros. Signs are fixed: the largest loading of an axis is positive.
    """
    centred = x.double() - x.double().mean(0)
    _, s, v = torch.linalg.svd(centred, full_matrices=False)
    v = v[:count] * v[:count].gather(1, v[:count].abs().argmax(1, keepdim=True)).sign()
    found, total = centred @ v.T, (s**2).sum()
    share = (s[:count] ** 2 / total) if total > 0 else torch.zeros(len(s[:count]))
    short = count - found.shape[1]
    return F.pad(found, (0, short)).float(), F.pad(share, (0, short)).float()
