"""The random parameters of the views of a batch, packed into one block of memory.

in   for each view a NamedTuple of CPU tensors and plain values; a loader's worker draws it
out  the same NamedTuples with their tensors on a device, after one copy of the block

One block is one shared file between processes, one pinned buffer, and one copy to the device.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from mvssl.distributed.devices import send

Tree = TypeVar("Tree")  # a NamedTuple of tensors, plain values and further NamedTuples

_ALIGNMENT = 8  # bytes of the widest type; the elements of a type begin at a multiple of its size


class _Slot(NamedTuple):
    """Where a tensor lies in the block."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    begin: int  # in elements of `dtype`


@dataclass(frozen=True)
class DrawnParameters:
    """What was drawn with one seed for the samples of a batch. `ViewSet.draw` makes it."""

    seed: int
    layout: dict[str, Any]  # view -> its parameters, with a `_Slot` in place of each tensor
    position: _Slot
    block: Tensor  # uint8, on the CPU

    @classmethod
    def pack(cls, seed: int, position: Tensor, parameters: Mapping[str, Any]) -> "DrawnParameters":
        """Copy the parameters of each view into one block. A tensor that several views share is copied once."""
        slots: dict[int, _Slot] = {}
        pieces: list[tuple[int, np.ndarray]] = []
        end = 0

        def assign(x: Tensor) -> _Slot:
            nonlocal end
            if id(x) not in slots:
                pieces.append((end, x.numpy()))
                slots[id(x)] = _Slot(x.dtype, tuple(x.shape), _dense_strides(x.shape), end // x.element_size())
                end += -(-x.numel() * x.element_size() // _ALIGNMENT) * _ALIGNMENT
            return slots[id(x)]

        where = assign(position)
        layout = {name: map_leaves(of, Tensor, assign) for name, of in parameters.items()}
        block = np.zeros(max(end, _ALIGNMENT), np.uint8)  # an empty one has no views of other types
        for begin, array in pieces:
            block[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)[...] = array
        return cls(seed, layout, where, torch.from_numpy(block))

    def belongs_to(self, seed: int, position: Tensor) -> bool:
        """Return whether these are the draws of `seed` for samples at `position` (int64 [n], on the CPU)."""
        return seed == self.seed and torch.equal(position, _read_slots(self.position, self.block))

    def on(self, device: torch.device | str) -> dict[str, Any]:
        """Return the parameters of each view with their tensors on `device`."""
        block = send(self.block, torch.device(device))
        return {name: _read_slots(of, block) for name, of in self.layout.items()}

    def pin_memory(self) -> "DrawnParameters":
        """Return the same in pinned memory. torch's `DataLoader` calls it."""
        return replace(self, block=self.block.pin_memory())


def map_leaves(tree: Any, kind: type, change: Callable[[Any], Any]) -> Any:
    """Return a tree of NamedTuples with `change` applied to each member of a type; other members stay."""
    if isinstance(tree, kind):
        return change(tree)
    if isinstance(tree, tuple) and type(tree) is not tuple:
        return type(tree)(*[map_leaves(part, kind, change) for part in tree])
    return tree


def take_rows(tree: Tree, rows: Tensor | slice) -> Tree:
    """Return the parameters of some samples: a NamedTuple with these rows of each tensor."""
    return map_leaves(tree, Tensor, lambda x: x[rows])


def _read_slots(tree: Any, block: Tensor) -> Any:
    typed = {}

    def read(slot: _Slot) -> Tensor:
        if slot.dtype not in typed:
            typed[slot.dtype] = block.view(slot.dtype)
        return typed[slot.dtype].as_strided(slot.shape, slot.stride, slot.begin)

    return map_leaves(tree, _Slot, read)


def _dense_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides)) if shape else ()
