"""Crop, resize and flip of bytes on a CPU, image by image, with torch's vectorised antialiased kernel for uint8.

in   images uint8 [n, c, h, w] of at most four channels, and a `Placement`
out  uint8 [n, c, *size]

Products with matrices cost more with every pixel of a side; this kernel only reads the pixels under the filter. Only
boxes of whole pixels can be cut out. Others occur where a view repeats the placement of one with another resolution.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mvssl.views.images.geometry import Placement

SMALL = 48  # pixels of a side; up to here one product for a block of images takes less time than a call for each
_MOST_CHANNELS = 4  # of the vectorised kernel


def has_byte_kernel(x: Tensor, size: tuple[int, int]) -> bool:
    """Return whether images [n, c, h, w] are resized faster one by one as bytes than as a batch of floats."""
    bytes_on_cpu = x.dtype == torch.uint8 and x.device.type == "cpu" and x.shape[1] <= _MOST_CHANNELS
    return bytes_on_cpu and max(*x.shape[-2:], *size) > SMALL


def can_cut(placement: Placement, inside: tuple[int, int]) -> Tensor:
    """Return the rows whose boxes have whole pixels and are not shifted after the crop; bool [n]."""
    pixels = placement.box * torch.tensor(inside)[:, None]
    whole = ((pixels - pixels.round()).abs() < 1e-6).flatten(1).all(1)
    return whole & (placement.shift == 0).all(1)


def resize_bytes(x: Tensor, placement: Placement, size: tuple[int, int]) -> Tensor:
    """Return uint8 [n, c, *size] of images [n, c, h, w], for placements that can be cut out.

    The kernel rounds to bytes after columns and after rows, so the result is within 1 of the exact filter.
    """
    n, c, h, w = x.shape
    if not n:
        return x.new_empty(0, c, *size)
    begin, strides = x.storage_offset(), x.stride()
    # the kernel is fastest where the channels of a pixel are side by side, but reorders nothing for a part of an image
    layout = torch.channels_last if c > 1 and strides[1] == 1 else torch.contiguous_format
    boxes = (placement.box * torch.tensor([h, w])[:, None]).round().int().tolist()
    images = []
    for i, (((top, tall), (left, wide)), flip) in enumerate(zip(boxes, placement.flip.tolist(), strict=True)):
        first = begin + i * strides[0] + top * strides[2] + left * strides[3]
        image = x.as_strided((1, c, tall, wide), strides, first)
        image = image.flip(3) if flip else image.contiguous(memory_format=layout)
        if (tall, wide) != size:
            image = F.interpolate(image, size, mode="bilinear", antialias=True)
        images.append(image)
    return torch.cat(images)
