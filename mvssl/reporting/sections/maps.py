"""Local maps: the three strongest principal components of the features of each place, as colours over the input."""

import torch
from torch import Tensor

from mvssl.data.order import spread_indices
from mvssl.errors import DataError
from mvssl.recipe.draw_names import first_draw_name
from mvssl.reporting.content import Block, Cell, Galleries, Gallery, Grid, Paragraph
from mvssl.reporting.inputs import Inputs
from mvssl.reporting.pictures import Pixels, encode_pixels, tint_pixels, view_pixels
from mvssl.reporting.samples import principal_components

SAMPLES, MAX_VIEWS = 6, 6
FINEST, COARSEST = 32, 3  # sides of the maps that can be drawn
FITTED = 32  # samples that the components are fitted on
NOTE = (
    "The features of each place, with their three strongest principal components as red, green and blue. Places of one "
    "colour have similar features. Colours of different views and maps cannot be compared."
)


def show_maps(inputs: Inputs) -> list[Block]:
    """Return for each view some samples, and over them a fine and the deepest map with some places."""
    encoded = inputs.encoded.get()
    fitted = spread_indices(len(encoded.indices), FITTED).tolist()
    drawn = spread_indices(len(fitted), SAMPLES).tolist()
    views, model, figures = encoded.run.views, encoded.run.model, []
    batch = encoded.decode(fitted)
    for view, x in views.clean(batch, encoded.device).items():
        if x.dim() != 4 or len(figures) == MAX_VIEWS:
            continue
        with torch.inference_mode():
            features = model.encode({first_draw_name(view, views.names) or view: x})
        upside_down = views.view(view).picture_kind == "spectrogram"
        maps = [(m.flip(2) if upside_down else m).cpu() for m in next(iter(features.values())).maps]
        levels = choose_levels([(m.shape[2], m.shape[3]) for m in maps])
        if levels:
            all_pixels = view_pixels(views, view, x, batch)
            pixels = [all_pixels[k] for k in drawn]
            cells = [Cell(encode_pixels(one, f"{view}, sample {k + 1}")) for k, one in enumerate(pixels)]
            grids = [_draw_map(view, level, maps[level], pixels, drawn) for level in levels]
            figures.append(Gallery(view, "", [Grid(cells, len(cells), title="input"), *grids]))
    if not figures:
        raise DataError("no view is an image whose encoder has maps of at least 3 x 3 places")
    return [Paragraph(NOTE), Galleries(figures)]


def choose_levels(sides: list[tuple[int, int]]) -> list[int]:
    """Return the numbers of up to two maps: the deepest with some places, and the deepest that is finer."""
    fit = [k for k, (h, w) in enumerate(sides) if min(h, w) >= COARSEST and max(h, w) <= FINEST]
    if not fit:
        return []
    finer = [k for k in fit if sides[k][0] > sides[fit[-1]][0]]
    return [*finer[-1:], fit[-1]]


def colour_places(x: Tensor) -> tuple[Tensor, list[float]]:
    """Return a map [n, c, h, w] as colours [n, 3, h, w] in [0, 1], and the share of variance of each component."""
    n, c, h, w = x.shape
    rows = x.float().nan_to_num(0.0).permute(0, 2, 3, 1).reshape(-1, c)
    scores, share = principal_components(rows, 3)
    low, high = scores.quantile(0.02, dim=0), scores.quantile(0.98, dim=0)
    scaled = ((scores - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
    return scaled.reshape(n, h, w, 3).permute(0, 3, 1, 2), share.tolist()


def _draw_map(view: str, level: int, x: Tensor, pixels: list[Pixels], samples: list[int]) -> Grid:
    """Return one map [n, c, h, w] as colours over the pixels of some of its samples."""
    colours, share = colour_places(x)
    h, w = x.shape[2:]
    cells = [
        Cell(encode_pixels(tint_pixels(one, colours[sample]), f"{view}, sample {k + 1}, components of map {level}"))
        for k, (sample, one) in enumerate(zip(samples, pixels, strict=True))
    ]
    return Grid(cells, len(cells), title=f"map {level}, {h} x {w} ({sum(share):.0%} of the variance)")
