"""Local maps: the three strongest components of what an encoder says of each place, as colours over its input."""

import torch
from torch import Tensor

from mvssl.recipe.naming import first_drawn
from mvssl.reporting import picture
from mvssl.reporting.html import Html, el
from mvssl.reporting.samples import Look
from mvssl.reporting.sections import Absent, Section
from mvssl.views.normalize import spread_indices

SAMPLES, VIEWS = 6, 6
FINEST, COARSEST = 32, 3  # sides of maps that are worth drawing
FITTED = 32  # samples on which the components are found


def maps(look: Look) -> Section | Absent:
    """For each view its samples, and over them a fine and the deepest map that still has places."""
    n = len(look.rows)
    fitted = spread_indices(n, FITTED).tolist()
    drawn = spread_indices(len(fitted), SAMPLES).tolist()
    views, model = look.run.views, look.run.model
    batch = look.batch(fitted)
    clean = views.clean(batch, look.device)
    figures = []
    for view, x in clean.items():
        if x.dim() != 4 or len(figures) == VIEWS:
            continue
        with torch.inference_mode():
            found = model.encode({first_drawn(view, views.names) or view: x})
        upside_down = views.view(view).picture_kind == "spectrogram"
        local = [m.flip(2) if upside_down else m for m in next(iter(found.values())).maps]
        levels = choose([(m.shape[2], m.shape[3]) for m in local])
        if levels:
            shown = picture.look(views, view, x, batch.columns[views.source_of(view)])
            figures.append(_figure(view, shown, local, levels, drawn))
    if not figures:
        return Absent("Local maps", "no view is an image whose encoder has maps of at least 3 x 3 places")
    text = (
        "What the encoder says of each place, on its three strongest principal components, as red, green and blue: "
        "places of one colour are alike to the encoder. Colours of different views and maps cannot be compared."
    )
    body = el("div", el("p", text, class_="note"), el("div", figures, class_="figures"))
    return Section("maps", "Local maps", body)


def choose(sides: list[tuple[int, int]]) -> list[int]:
    """Numbers of up to two maps to draw: the deepest with some places, and the deepest that is finer than it."""
    fit = [k for k, (h, w) in enumerate(sides) if min(h, w) >= COARSEST and max(h, w) <= FINEST]
    if not fit:
        return []
    deepest = fit[-1]
    finer = [k for k in fit if sides[k][0] > sides[deepest][0]]
    return [*finer[-1:], deepest]


def colours(x: Tensor) -> tuple[Tensor, list[float]]:
    """A map [n, c, h, w] as colours [n, 3, h, w] in [0, 1], and the share of variance of each component."""
    n, c, h, w = x.shape
    rows = x.float().nan_to_num(0.0).permute(0, 2, 3, 1).reshape(-1, c)
    found, share = picture.components(rows, 3)
    low, high = found.quantile(0.02, dim=0), found.quantile(0.98, dim=0)
    scaled = ((found - low) / (high - low).clamp(min=1e-9)).clamp(0, 1)
    return scaled.reshape(n, h, w, 3).permute(0, 3, 1, 2), share.tolist()


def _figure(view: str, shown: Tensor, maps: list[Tensor], levels: list[int], drawn: list[int]) -> Html:
    rows = [[picture.cell(shown[k], f"{view}, sample {number + 1}") for number, k in enumerate(drawn)]]
    names = ["input"]
    for level in levels:
        colour, share = colours(maps[level].cpu())
        laid = picture.over(_sized(shown[drawn]), colour[drawn])
        h, w = maps[level].shape[2:]
        names.append(f"map {level}, {h} x {w} ({sum(share):.0%} of the variance)")
        rows.append(
            [picture.image(laid[k], f"{view}, sample {k + 1}, components of map {level}") for k in range(len(drawn))]
        )
    grid = [el("div", el("small", name), el("div", row, class_="strip")) for name, row in zip(names, rows, strict=True)]
    return el("figure", el("figcaption", el("b", view)), grid)


def _sized(x: Tensor) -> Tensor:
    """Pictures large enough that the squares of a map show."""
    side = max(x.shape[2:])
    times = -(-picture.SMALL // side) if side < picture.SMALL else 1
    return x.repeat_interleave(times, 2).repeat_interleave(times, 3)
