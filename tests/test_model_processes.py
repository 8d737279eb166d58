"""A step of the model on two processes equals the step on one, also with batch norm and absent rows."""

import pytest
import torch
from spread_objective import Spread, context, views
from torch import Tensor
from torch.testing import assert_close

from mvssl import recipe
from mvssl.distributed import collectives
from mvssl.distributed.batch_norm import convert_batchnorm
from mvssl.encoders import Encoder
from mvssl.model import MultiView, Term


def small(joint: bool) -> MultiView:
    torch.manual_seed(0)
    table = recipe.EncoderConfig(name="resnet10_small", options={"channels": [4, 4, 4, 4]})
    encoder = Encoder(table, (3, 8, 8))
    return MultiView(
        {"left,right": encoder},
        [Term("t", 1.0, Spread({"left": encoder.widths, "right": encoder.widths}))],
        joint_bn=joint,
    ).double()


def step(model: MultiView, rows: slice, present: Tensor | None) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    x = {view: t[rows] for view, t in views(6, {"left": (3, 8, 8), "right": (3, 8, 8)}, torch.float64).items()}
    masks = {} if present is None else {"left": present[rows], "right": present[rows]}
    loss, _ = model(x, context(rows.stop - rows.start, **masks))
    loss.backward()
    return loss.detach(), {n: p.grad for n, p in model.named_parameters()}, dict(model.encoders.named_buffers())


def half_of_the_step(present, joint):
    return step(convert_batchnorm(small(joint)), slice(3 * collectives.rank(), 3 * collectives.rank() + 3), present)


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize(
    "present",
    [None, [1, 1, 1, 0, 1, 0], [1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0], [0] * 6],
    ids=["all", "some", "none on one process", "one in all", "none"],
)
def test_two_processes_with_batch_norm_and_absent_rows_equal_one(processes, present, joint):
    mask = None if present is None else torch.tensor(present).bool()
    loss, grads, buffers = step(convert_batchnorm(small(joint)), slice(0, 6), mask)
    parts = processes(half_of_the_step, mask, joint)
    assert_close(parts[0][0] + parts[1][0], loss, atol=1e-9, rtol=1e-9)
    for name, grad in grads.items():
        assert_close(parts[0][1][name] + parts[1][1][name], grad, atol=1e-9, rtol=1e-9)
    for part in parts:
        assert_close(part[2], buffers, atol=1e-9, rtol=1e-9)
