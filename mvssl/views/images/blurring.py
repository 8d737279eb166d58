"""Gaussian blur with a width for each sample, as small matrices on tiles of rows and columns.

in   images [n, c, h, w] and sigma [n] in pixels
out  images of the same shape

A tile of outputs depends on the inputs up to `radius` pixels around it. So a blur along one side is a product with one
matrix per tile, which holds the window and the reflection at the edges. An image no larger than a tile is one product.
"""

import functools

import torch
from torch import Tensor

TILE = 32  # outputs; of 8 to 112 the fastest: small products use the processor badly, large ones multiply more zeros
ONE_TILE = 64  # pixels of a side that is one product; it may be one for the whole batch, which tiles cannot be


def blur(x: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur with `sigma` [n] pixels, a window of 2 radius + 1 and reflected edges, as torchvision's gaussian_blur.

    Rows with sigma 0 do not change.
    """
    if x.device.type == "cpu":  # a GPU would have to wait for the number of rows
        rows = sigma.nonzero()[:, 0]
        if len(rows) < len(x):
            return x.index_copy(0, rows, _blur_all(x[rows], sigma[rows], radius)) if len(rows) else x
    return _blur_all(x, sigma, radius)


def _blur_all(x: Tensor, sigma: Tensor, radius: int) -> Tensor:
    distance = torch.arange(radius + 1, device=x.device)
    bell = (-0.5 * (distance / sigma[:, None].clamp(min=1e-3)).square()).exp()
    bell = bell * (bell > 1e-12)  # products with numbers too small for a normal float32 take a hundred times as long
    bell = bell / (2 * bell.sum(1, keepdim=True) - bell[:, :1])  # [n, radius + 1], for one side of the window
    return _blur_rows(_blur_columns(x, bell), bell)


def _blur_columns(x: Tensor, bell: Tensor) -> Tensor:
    n, c, h, w = x.shape
    x, y = x.reshape(n, c * h, w), x.new_empty(n, c * h, w)
    for begin, end, first, matrices in _tile_matrices(bell, w):
        torch.bmm(x[:, :, first : first + matrices.shape[2]], matrices.mT, out=y[:, :, begin:end])
    return y.view(n, c, h, w)


def _blur_rows(x: Tensor, bell: Tensor) -> Tensor:
    n, c, h, w = x.shape
    x, y = x.reshape(n * c, h, w), x.new_empty(n * c, h, w)
    for begin, end, first, matrices in _tile_matrices(bell, h):
        torch.bmm(matrices.repeat_interleave(c, 0), x[:, first : first + matrices.shape[2]], out=y[:, begin:end])
    return y.view(n, c, h, w)


def _tile_matrices(bell: Tensor, pixels: int) -> list[tuple[int, int, int, Tensor]]:
    """Return for each tile its first output, its end, its first input, and matrices [n, outputs, inputs]."""
    tiles, size = [], pixels if pixels <= ONE_TILE else TILE
    for begin in range(0, pixels, size):
        end = min(begin + size, pixels)
        first, basis = _tile_basis(pixels, begin, end, bell.shape[1] - 1, bell.device)
        matrices = (bell @ basis.flatten(1)).view(len(bell), *basis.shape[1:])
        if pixels < bell.shape[1]:  # the window is reflected once, and what is beyond gets no weight
            matrices = matrices / matrices.sum(2, keepdim=True)
        tiles.append((begin, end, first, matrices))
    return tiles


@functools.lru_cache(maxsize=256)
def _tile_basis(pixels: int, begin: int, end: int, radius: int, device: torch.device) -> tuple[int, Tensor]:
    """Return the first input of the tile of outputs `begin` to `end`, and [radius + 1, outputs, inputs].

    Number d says how often an input is at distance d from an output: directly, or reflected at the first or last pixel.
    """
    inputs = min(pixels, end - begin + 2 * radius)
    first = min(max(begin - radius, 0), pixels - inputs)
    here, there = torch.arange(begin, end)[:, None], torch.arange(first, first + inputs)
    left = torch.where(there > 0, here + there, radius + 1)
    right = torch.where(there < pixels - 1, 2 * (pixels - 1) - here - there, radius + 1)
    distance = torch.arange(radius + 1)[:, None, None]
    times = sum((away == distance).float() for away in ((here - there).abs(), left, right))
    return first, torch.as_tensor(times).to(device)
