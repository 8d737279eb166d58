"""Raster pictures for a page: samples of a view, colours over them, and figures, each with its own data.

in   a panel of `mvssl.figures.panels`, pixels, or a matplotlib figure
out  `Picture`: WebP or PNG as a data URI; small images keep every pixel, larger ones have a bounded size
"""

import base64
import io

import numpy as np
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from mvssl.data import Batch
from mvssl.figures.panels import Panel, view_panel
from mvssl.reporting.content import Picture
from mvssl.views import ViewSet

LARGEST = 112  # pixels of the longer side of an image; its place on the page is not larger
SMALL = 48  # pixels of the longer side up to which every pixel is kept
DRAWN = 132  # pixels of both sides of a drawing, such as lines of a signal
TINT = 0.55  # share of a colour laid over a gray picture
Pixels = np.ndarray  # uint8 [h, w, 3 or 4]


def view_pixels(views: ViewSet, name: str, x: Tensor, batch: Batch) -> list[Pixels]:
    """Return what the view `name` made of the samples of a batch, x [n, ...], as one picture a sample."""
    return panel_pixels(view_panel(views, name, x, batch), len(x))


def panel_pixels(panel: Panel, count: int) -> list[Pixels]:
    """Return the first `count` rows of a panel; images as they are, everything else as matplotlib draws it."""
    if panel.pixels is not None and panel.present is None:
        x = _shrink(panel.pixels[:count])
        return list((x.nan_to_num(0.0).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy())
    figure = Figure(figsize=(count, 1), dpi=DRAWN, facecolor="none")
    for row in range(count):
        axes = figure.add_axes((row / count, 0, 1 / count, 1), facecolor="none")
        panel.draw(axes, row, False)
        axes.axis("off")
    return np.split(_draw(figure), count, axis=1)


def encode_pixels(pixels: Pixels, text: str) -> Picture:
    """Return pixels as a picture; `text` is for readers who do not see it. With four channels they are a drawing."""
    height, width, channels = pixels.shape
    exact, image = max(height, width) <= SMALL, Image.fromarray(pixels)
    data = _encode(image, colours=64) if channels == 4 else _encode(image, lossless=exact)
    return Picture(data, text, width, height, exact)


def encode_figure(figure: Figure, text: str) -> Picture:
    """Return a matplotlib figure as a picture."""
    image = Image.fromarray(_draw(figure))
    data = min(_encode(image), _encode(image, colours=256), key=len)  # photographs or lines
    return Picture(data, text, *image.size, False)


def _draw(figure: Figure) -> Pixels:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())


def _encode(image: Image.Image, *, colours: int | None = None, lossless: bool = False) -> str:
    """Return an image as a data URI: WebP, or with a number of colours PNG, which is smaller for lines."""
    file, kind = io.BytesIO(), "png" if colours else "webp"
    if colours:
        image.quantize(colours, method=Image.Quantize.FASTOCTREE).save(file, kind, optimize=True)
    else:
        image.save(file, kind, lossless=lossless, quality=85, method=4)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def tint_pixels(pixels: Pixels, colours: Tensor) -> Pixels:
    """Return a picture in gray under colours [3, h', w'] in [0, 1]; a small one is enlarged so that places show."""
    times = -(-SMALL // max(pixels.shape[:2]))
    gray = pixels[..., :3].mean(axis=2).repeat(times, 0).repeat(times, 1) / 255
    laid = F.interpolate(colours[None], gray.shape, mode="nearest")[0].permute(1, 2, 0).numpy()
    return ((TINT * laid + (1 - TINT) * gray[..., None]) * 255).round().astype(np.uint8)


def _shrink(x: Tensor) -> Tensor:
    """Images [n, 3, h, w] whose longer side is at most LARGEST."""
    h, w = x.shape[2:]
    if max(h, w) <= LARGEST:
        return x.float()
    sides = [max(1, round(side * LARGEST / max(h, w))) for side in (h, w)]
    return F.interpolate(x.float(), sides, mode="bilinear", antialias=True, align_corners=False)
