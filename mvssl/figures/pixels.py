"""Images of any number of channels as RGB pixels.

in   images [n, c, h, w] with any range of numbers, and the names of their channels if they have some
out  RGB [n, 3, h, w] in [0, 1]

One channel becomes gray, or a colour map if it holds measurements such as depth. Three channels are RGB. Of more than
three channels, those named red, green and blue are shown; without names it is the last, the middle and the first.
"""

import re
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from matplotlib import colormaps
from torch import Tensor

MEASURED = {"depth", "disparity", "range", "height", "dem", "ir", "nir", "swir", "lwir", "infrared", "thermal"}
# names of red, green and blue: as words, on Sentinel-2, on Landsat 8 and 9 (whose blue is B2)
PRIMARY = (("red", "b04", "b4", "r"), ("green", "b03", "b3", "g"), ("blue", "b02", "b2", "b"))
MAX_VALUES = 1_000_000  # values that a percentile is computed from
TINT = 0.55  # share of a colour that is laid over a gray image


def is_measured(column: Tensor, *names: str) -> bool:
    """Whether one channel holds measurements, not a picture: floats, or bytes with a name such as depth."""
    return column.is_floating_point() or bool(MEASURED & set(re.split(r"[^a-z]+", " ".join(names).lower())))


def find_rgb_bands(names: Sequence[str], count: int) -> list[int]:
    """Return which of `count` bands are shown as red, green and blue."""
    known = {name.lower(): k for k, name in enumerate(names)} if len(names) == count else {}
    bands = [next((known[word] for word in words if word in known), None) for words in PRIMARY]
    return [count - 1, count // 2, 0] if None in bands else bands  # pyright: ignore[reportReturnType]


def rgb_pixels(x: Tensor, names: Sequence[str] = (), measured: bool = False) -> Tensor:
    """Return images [n, c, h, w] as RGB [n, 3, h, w]; values outside [0, 1] are scaled by percentiles of the batch."""
    count, fits = x.shape[1], fits_pixels(x)
    if count >= 3:
        kept = x if count == 3 else x[:, find_rgb_bands(names, count)]
        return kept if count == 3 and fits else torch.stack([_scale(band) for band in kept.unbind(1)], 1)
    gray = x[:, 0] if fits and not measured else _scale(x[:, 0])
    return map_colours(gray, "viridis") if measured else gray[:, None].expand(-1, 3, -1, -1)


def map_colours(x: Tensor, colour_map: str) -> Tensor:
    """Return numbers [n, h, w] in [0, 1] as RGB [n, 3, h, w] of one of matplotlib's colour maps."""
    table = torch.tensor(colormaps[colour_map].resampled(256)(range(256)), dtype=torch.float32)[:, :3]
    return table[(x * 255).round().long()].permute(0, 3, 1, 2)


def tint(pixels: Tensor, colours: Tensor) -> Tensor:
    """Return images [n, 3, h, w] in gray under the colours [n, 3, h', w'] of their places, all in [0, 1]."""
    gray = pixels.mean(dim=1, keepdim=True)
    return TINT * F.interpolate(colours, size=pixels.shape[2:], mode="nearest") + (1 - TINT) * gray


def fits_pixels(x: Tensor) -> bool:
    """Whether all values lie in [0, 1]."""
    return bool(x.amin() >= 0 and x.amax() <= 1)


def percentile_range(band: Tensor) -> tuple[float, float]:
    """Return the 1st and the 99th percentile of the finite values."""
    finite = band[band.isfinite()][:MAX_VALUES]
    return (float(finite.quantile(0.01)), float(finite.quantile(0.99))) if len(finite) else (0.0, 0.0)


def _scale(band: Tensor) -> Tensor:
    """Scale one band from its 1st to its 99th percentile to [0, 1]; values that are not finite become 0."""
    low, high = percentile_range(band)
    return ((band - low) / max(high - low, 1e-12)).nan_to_num(0.0).clamp(0, 1)
