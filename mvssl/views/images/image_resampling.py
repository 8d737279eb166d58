"""Crop, scale, flip, translation and affine warp of full batches, equal to torchvision's antialiased operations.

in   images [n, c, h, w], uint8 or float32, any number of channels, and a `Placement`
out  images [n, c, *size] in the same units; nearest only copies pixels

An antialiased linear filter is separable (Heckbert, "Fundamentals of texture mapping and image warping", 1989). Crop,
scale, flip and translation are therefore one matrix for the rows and one for the columns of each sample. If nothing
shrinks, this is plain bilinear interpolation. A rotation or shear is a warp at source resolution before them.

Two ways are faster and differ from the matrices in float32 by less than 1 of 255. On a CPU, larger images of bytes are
cut out and resized one by one by torch's kernel for bytes. On a GPU, bytes are multiplied in float16, which holds them
exactly.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mvssl.data.drawn import take_rows
from mvssl.views.base import Interpolation
from mvssl.views.images.byte_resizing import can_cut, has_byte_kernel, resize_bytes
from mvssl.views.images.geometry import Placement

BEYOND = 1e9  # place of a pixel that no filter reaches


def apply_placement(x: Tensor, placement: Placement, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """Return images [n, c, h, w] cropped, flipped, moved and warped by `placement`, as [n, c, *size].

    Bytes stay bytes or become float32 of 0 to 255.
    """
    inside = (x.shape[-2], x.shape[-1])
    if placement.warp is not None:
        x = warp(x.float(), placement.warp, interpolation, placement.shrinks)
    if inside == size and placement.whole:
        return x
    if interpolation == "bilinear" and has_byte_kernel(x, size):
        return _resize_rows(x, placement, size)
    short = x.dtype == torch.uint8 and x.device.type == "cuda"
    return resample(x, placement, size, interpolation, torch.float16 if short else torch.float32)


def _resize_rows(x: Tensor, placement: Placement, size: tuple[int, int]) -> Tensor:
    """Resize as bytes, and by matrices the rows whose boxes have parts of pixels: a row never depends on the others."""
    cut = can_cut(placement, (x.shape[-2], x.shape[-1]))
    if cut.all():
        return resize_bytes(x, placement, size)
    y = resample(x, placement, size, "bilinear")
    if cut.any():
        y[cut] = resize_bytes(x[cut], take_rows(placement, cut), size).float()
    return y


def resample(
    x: Tensor, placement: Placement, size: tuple[int, int], interpolation: Interpolation,
    dtype: torch.dtype = torch.float32,
) -> Tensor:  # fmt: skip
    """Return images [n, c, h, w] after the crop, flip and shift of `placement`, by matrices or, for nearest, indices.

    Matrices are multiplied in `dtype`, and the result is float32. Nearest keeps the type of x.
    """
    inside = (x.shape[-2], x.shape[-1])
    box, flip, shift = placement.box, placement.flip[:, None], placement.shift
    rows = torch.cat([box[:, 0] * inside[0], torch.zeros_like(flip), shift[:, :1] * size[0]], 1).float()  # [n, 4]
    columns = torch.cat([box[:, 1] * inside[1], flip, shift[:, 1:] * size[1]], 1).float()
    if interpolation == "nearest":
        return _gather_pixels(x, nearest_index(rows, inside[0], size[0]), nearest_index(columns, inside[1], size[1]))
    filters = linear_filter_matrix(rows, inside[0], size[0]), linear_filter_matrix(columns, inside[1], size[1])
    return apply_filters(x.to(dtype), *(matrices.to(dtype) for matrices in filters)).float()


def source_centres(axis: Tensor, outside: int) -> Tensor:
    """Return the places of output pixels along one axis of the source, in source pixels [n, out].

    `axis` [n, 4]: start and length in source pixels, flip (0 or 1), shift in output pixels.
    """
    start, length, flip, shift = axis[:, :, None].unbind(1)
    i = torch.arange(outside, device=axis.device) + shift
    period = 2 * max(outside - 1, 1)
    i = torch.remainder(i, period)
    i = torch.minimum(i, period - i)  # reflected at the output's first and last pixel
    i = torch.where(flip > 0, outside - 1 - i, i)
    return start + length / outside * (i + 0.5)


def linear_filter_matrix(axis: Tensor, inside: int, outside: int) -> Tensor:
    """Return the antialiased linear filter as matrices [n, out, in].

    Its triangle reaches one output pixel to either side, at least one source pixel. Pixels outside the crop have no
    weight.
    """
    start, length = axis[:, 0, None], axis[:, 1, None]
    support = (length / outside).clamp(min=1)
    pixels = torch.arange(inside, device=axis.device)
    in_box = (pixels >= start.floor()) & (pixels < (start + length).ceil())
    place = torch.where(in_box, pixels + 0.5, BEYOND)
    return triangle_weights(source_centres(axis, outside), support, place)


def triangle_weights(centre: Tensor, support: Tensor, place: Tensor) -> Tensor:
    """Return max(0, 1 - |place - centre| / support), divided by its sum over places, as [n, out, in].

    centre [n, out], support [n, 1], place [n, in]. Every operation passes over the matrices, so they are few.
    """
    distance = (place[:, None] - centre[..., None]).abs_()
    below = distance.sub_(support[..., None]).clamp_(max=0)  # the weight times -support, which the division takes away
    return below.div_(below.sum(-1, keepdim=True))


def apply_filters(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return images [n, c, h, w] times the matrices rows [n, out_h, h] and columns [n, out_w, w]."""
    n, c, h, w = x.shape
    x = torch.bmm(x.reshape(n, c * h, w), columns.mT).view(n, c, h, columns.shape[1])
    return torch.matmul(rows[:, None], x)


def nearest_index(axis: Tensor, inside: int, outside: int) -> Tensor:
    """Return the source pixel, inside the crop, at the centre of each output pixel; int64 [n, out]."""
    start, length = axis[:, 0, None], axis[:, 1, None]
    last = ((start + length).ceil() - 1).clamp(max=inside - 1)
    return torch.minimum(torch.maximum(source_centres(axis, outside).floor(), start.floor()), last).long()


def _gather_pixels(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    n, c, _, w = x.shape
    x = x.gather(2, rows[:, None, :, None].expand(n, c, rows.shape[1], w))
    return x.gather(3, columns[:, None, None, :].expand(n, c, rows.shape[1], columns.shape[1]))


def warp(x: Tensor, parameters: Tensor, interpolation: Interpolation, shrinks: bool) -> Tensor:
    """Warp about the centre as torchvision's `affine`, with 0 outside, but smooth first where it shrinks."""
    h, w = x.shape[-2:]
    degrees, down, right, scale, shear = parameters.unbind(1)
    if interpolation == "bilinear" and shrinks:
        support = (1 / scale).clamp(min=1).float()[:, None]
        x = apply_filters(x, *(_smoothing(support, pixels) for pixels in (h, w)))
    cos, sin, slope = degrees.deg2rad().cos(), degrees.deg2rad().sin(), shear.deg2rad().tan()
    # inverse of rotation @ shear @ scale, from output to source, x first
    xx, xy = (cos - sin * slope) / scale, (cos * slope + sin) / scale
    yx, yy = -sin / scale, cos / scale
    dx, dy = right * w, down * h
    theta = torch.stack([xx, xy * h / w, -2 * (xx * dx + xy * dy) / w, yx * w / h, yy, -2 * (yx * dx + yy * dy) / h], 1)
    grid = F.affine_grid(theta.float().view(-1, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode=interpolation, padding_mode="zeros", align_corners=False)


def _smoothing(support: Tensor, pixels: int) -> Tensor:
    """Low-pass matrices [n, pixels, pixels] that keep the size of an image."""
    here = torch.arange(pixels, device=support.device).expand(len(support), pixels) + 0.5
    return triangle_weights(here, support, here)
