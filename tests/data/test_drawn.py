"""Parameters of a batch in one block: back as they were, pinned, pickled, and drawn by loaders for each batch."""

import pickle
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from mvssl.data import DatasetSource, loader
from mvssl.data.drawn import DrawnParameters


class Inner(NamedTuple):
    rows: Tensor
    sizes: tuple[int, int]


class Parameters(NamedTuple):
    inner: Inner
    flags: Tensor
    nothing: Tensor | None
    numbers: Tensor
    longest: float


def parameters(n: int) -> Parameters:
    numbers = torch.arange(6.0 * n).view(n, 3, 2).mT  # not contiguous
    inner = Inner(torch.arange(n // 2), (3, 4))
    return Parameters(inner, torch.arange(n) % 2 == 0, None, numbers, 0.5)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return all(map(equal, a, b)) if isinstance(a, Inner | Parameters) else a == b


@pytest.mark.parametrize("n", [0, 1, 5])
def test_parameters_come_back_as_they_were(n):
    given = {"a": parameters(n), "b": Inner(torch.zeros(n, 0, 2).double(), (1, 2)), "empty": None}
    drawn = DrawnParameters.pack(3, torch.arange(n), given)
    for one in (drawn, pickle.loads(pickle.dumps(drawn))):
        back = one.on("cpu")
        assert list(back) == list(given)
        assert all(equal(back[name], given[name]) for name in given)
        assert back["a"].flags.untyped_storage().data_ptr() == back["a"].numbers.untyped_storage().data_ptr()


def test_a_tensor_of_two_views_is_packed_once():
    shared = torch.rand(100)
    one, two = Inner(shared, (1, 2)), Inner(shared, (1, 2))
    apart = two._replace(rows=shared.clone())
    sizes = [DrawnParameters.pack(0, torch.arange(1), {"a": one, "b": b}).block.numel() for b in (two, apart)]
    assert sizes[1] - sizes[0] == shared.numel() * shared.element_size()


def test_parameters_belong_to_one_seed_and_the_same_samples():
    drawn = DrawnParameters.pack(3, torch.tensor([4, 9]), {})
    assert drawn.belongs_to(3, torch.tensor([4, 9]))
    assert not drawn.belongs_to(4, torch.tensor([4, 9]))
    assert not any(drawn.belongs_to(3, torch.tensor(other)) for other in ([9, 4], [4], [4, 9, 9]))


def test_the_whole_block_is_pinned_at_once():
    class Pinned:
        def pin_memory(self):
            return "pinned"

    drawn = DrawnParameters.pack(3, torch.arange(2), {"a": parameters(2)})
    assert DrawnParameters(3, drawn.layout, drawn.position, Pinned()).pin_memory().block == "pinned"  # pyright: ignore


class Numbers:
    def __len__(self):
        return 20

    def __getitem__(self, i):
        return {"x": float(i)}


def draw_doubled(position: Tensor) -> DrawnParameters:
    return DrawnParameters.pack(1, position, {"a": Inner(2 * position, (0, 0))})


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_draw_for_the_positions_of_each_batch(workers):
    batches = list(
        loader(DatasetSource(Numbers()), batch_size=4, seed=0, stop_step=7, workers=workers, draw=draw_doubled)
    )
    assert len(batches) == 7
    for batch in batches:
        assert batch.drawn is not None
        assert batch.drawn.belongs_to(1, batch.position)
        assert torch.equal(batch.drawn.on("cpu")["a"].rows, 2 * batch.position)


def test_loaders_draw_nothing_unless_asked():
    assert next(iter(loader(DatasetSource(Numbers()), batch_size=4, seed=0, stop_step=1))).drawn is None
