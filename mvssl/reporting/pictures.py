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
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.split(np.array(canvas.buffer_rgba()), count, axis=1)


def encode_pixels(pixels: Pixels, text: str) -> Picture:
    """Return pixels as a picture; `text` is for readers who do not see it. With four channels they are a drawing."""
    height, width, channels = pixels.shape
    exact, image = max(height, width) <= SMALL, Image.fromarray(pixels)
    data = _encode_drawing(image, 64) if channels == 4 else _encode_image(image, exact)
    return Picture(data, text, width, height, exact)


def encode_figure(figure: Figure, text: str) -> Picture:
    """Return a matplotlib figure as a picture."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.array(canvas.buffer_rgba()))
    data = min(_encode_image(image, False), _encode_drawing(image, 256), key=len)  # lines or photographs
    return Picture(data, text, *image.size, False)


def tint(pixels: Pixels, colours: Tensor) -> Pixels:
    """Return a picture in gray under colours [3, h', w'] in [0, 1]; a small one is enlarged so that places show."""
    times = -(-SMALL // max(pixels.shape[:2]))
    gray = pixels[..., :3].mean(axis=2).repeat(times, 0).repeat(times, 1) / 255
    laid = F.interpolate(colours[None], gray.shape, mode="nearest")[0].permute(1, 2, 0).numpy()
    return ((TINT * laid + (1 - TINT) * gray[..., None]) * 255).round().astype(np.uint8)


def _encode_image(image: Image.Image, exact: bool) -> str:
    file = io.BytesIO()
    image.save(file, "webp", lossless=exact, quality=85, method=4)
    return _data_uri("webp", file)


def _encode_drawing(image: Image.Image, colours: int) -> str:
    file = io.BytesIO()
    image.quantize(colours, method=Image.Quantize.FASTOCTREE).save(file, "png", optimize=True)
    return _data_uri("png", file)


def _data_uri(kind: str, file: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _shrink(x: Tensor) -> Tensor:
    """Images [n, 3, h, w] whose longer side is at most LARGEST."""
    h, w = x.shape[2:]
    if max(h, w) <= LARGEST:
        return x.float()
    sides = [max(1, round(side * LARGEST / max(h, w))) for side in (h, w)]
    return F.interpolate(x.float(), sides, mode="bilinear", antialias=True, align_corners=False)
