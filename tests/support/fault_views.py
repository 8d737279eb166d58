"""Views and encoders that watch or disturb a run, named by import path in test recipes; what torch does meanwhile."""

import contextlib
import functools
import hashlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mvssl.distributed import collectives
from mvssl.distributed.local_exchange import LocalExchange
from mvssl.objectives.cmc import CMC
from mvssl.views import ImageView


class Witness(ImageView):
    """An image view that writes down, for every sample it draws, its position and a hash of the result.

    The draws of view NAME_0 go to FILE_0.RANK, those of NAME_1 to FILE_1.RANK.
    """

    def __init__(self, shape: tuple[int, ...], *, file: str):
        super().__init__(shape, crop=(0.5, 1.0), flip=0.5, jitter=(0.4, 0.4, 0.4, 0.0))
        self.file = file

    def __call__(self, column: Tensor, draws) -> Tensor:
        seen = super().__call__(column, draws)
        if draws is not None:
            which = draws.scope.rpartition("_")[2]  # of view image_0: 0
            with open(f"{self.file}_{which}.{collectives.rank()}", "a") as file:
                for position, row in zip(draws.position.tolist(), seen, strict=True):
                    file.write(json.dumps([position, hashlib.sha256(row.numpy().tobytes()).hexdigest()]) + "\n")
        return seen


def witnessed(file: Path) -> dict[int, str]:
    """What witnesses of all processes wrote: position -> hash of the view; each position once."""
    lines = [json.loads(line) for part in file.parent.glob(f"{file.name}.*") for line in part.read_text().splitlines()]
    assert len(lines) == len({position for position, _ in lines}), "a position was trained on twice"
    return dict(lines)


class Poison(ImageView):
    """An image view that turns samples at the given positions into NaN."""

    def __init__(self, shape: tuple[int, ...], *, positions: list[int]):
        super().__init__(shape, flip=0.5)
        self.positions = torch.tensor(positions)

    def __call__(self, column: Tensor, draws) -> Tensor:
        seen = super().__call__(column, draws)
        if draws is not None:
            seen[torch.isin(draws.position, self.positions)] = torch.nan
        return seen


class Killer(ImageView):
    """An image view that sends this process a signal when it sees the given position, once per marker file."""

    def __init__(self, shape: tuple[int, ...], *, position: int, signal: int, marker: str):
        super().__init__(shape, flip=0.5)
        self.position, self.signal, self.marker = position, signal, Path(marker)

    def __call__(self, column: Tensor, draws) -> Tensor:
        if draws is not None and (draws.position == self.position).any() and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.Signals(self.signal))
        return super().__call__(column, draws)


class Leaver(ImageView):
    """An image view that sends this process a signal while it is built, before any step."""

    def __init__(self, shape: tuple[int, ...], *, signal: int):
        super().__init__(shape)
        os.kill(os.getpid(), signal)


class Caller(ImageView):
    """An image view that sends this process a signal when a check looks at it for the given time, once per marker."""

    def __init__(self, shape: tuple[int, ...], *, time: int, signal: int, marker: str):
        super().__init__(shape, flip=0.5, normalize="none")
        self.time, self.signal, self.marker = time, signal, Path(marker)

    def __call__(self, column: Tensor, draws) -> Tensor:
        self.time -= draws is None
        if not self.time and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.Signals(self.signal))
        return super().__call__(column, draws)


@contextlib.contextmanager
def operations() -> Iterator[list[str]]:
    """Inside, what it gives grows by the name of every operation that torch runs, views of a tensor left out."""
    names: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if not func.is_view:
                names.append(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    with Watch():
        yield names


@contextlib.contextmanager
def exchanges() -> Iterator[list[str]]:
    """Inside, what it gives grows by the name of every collective that this process takes part in."""
    names: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("all_reduce", "all_gather"):
            patch.setattr(dist, name, functools.partial(_noted, names, name, getattr(dist, name)))
        quick = LocalExchange.__call__
        patch.setattr(LocalExchange, "__call__", lambda *given: _noted(names, "local", quick, *given))
        yield names


def _noted(names: list[str], name: str, work, *given, **keywords):
    names.append(name)
    return work(*given, **keywords)


class Own(CMC):
    """An objective of a user's own."""
