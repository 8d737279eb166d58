"""An objective for tests of the model, with views and a context for it."""

import torch
from torch import nn

from mvssl.encoders import Widths
from mvssl.objectives import Context, Objective
from mvssl.random import Draws

SHAPES = {"a_0": (3, 16, 16), "a_1": (3, 16, 16), "b": (1, 16, 16)}


class Spread(Objective):
    """The mean square of every present view's projected vector."""

    def __init__(self, widths: dict[str, Widths], *, embed: int = 4):
        super().__init__()
        self.project = nn.ModuleDict({view: nn.Linear(w.vector, embed, bias=False) for view, w in widths.items()})
        self.widths = widths
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, features, context):
        self.calls += 1
        squares = []
        for view, found in features.items():
            present = context.present.get(view, torch.ones(len(found.vector), dtype=torch.bool))
            squares.append((self.project[view](found.vector).square().mean(1) * present).sum())
        loss = torch.stack(squares).sum()
        return loss, {"square": loss.detach()}


def views(n=4, shapes=SHAPES, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return {view: torch.randn(n, *shape, generator=generator, dtype=dtype) for view, shape in shapes.items()}


def context(n=4, **present):
    position = torch.arange(n)
    return Context(step=0, index=position, draws=Draws(0, position), present=present)
