"""A vetoed step leaves no trace, and a vote counts every process."""

import pytest
import torch
from fault_views import operations
from torch import nn

from mvssl.training import guard


def test_a_vetoed_step_changes_no_weight_moment_or_statistic():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    buffers = guard.BufferSnapshot(model)
    x = torch.randn(4, 3)
    for poison, vetoed in ((1.0, False), (torch.nan, True), (1.0, False)):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        moments = [v.clone() for state in optimizer.state.values() for v in state.values()]
        buffers.take()
        loss = model(x * poison).square().sum() * 0.1
        loss.backward()
        norm = guard.measure_and_clip(model.parameters(), 1.0)
        vote = guard.collect_vote(loss.detach(), norm, stop=False, bad=0)
        guard.update_unless(vote.vetoed, optimizer, 1e-2)
        buffers.restore_where(vote.vetoed)
        same = [torch.equal(value, before[name]) for name, value in model.state_dict().items()]
        assert all(same) if vetoed else not any(same)
        if vetoed:
            after = [v for state in optimizer.state.values() for v in state.values()]
            assert all(torch.equal(a, b) for a, b in zip(moments, after, strict=True))


def model_with_gradients(deep: int = 2) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(*(layer for _ in range(deep) for layer in (nn.Linear(3, 3), nn.BatchNorm1d(3))))
    model(torch.randn(4, 3)).square().sum().backward()
    return model


@pytest.mark.parametrize("clip", [1e-3, 1e3, None])
def test_gradients_are_clipped_as_torch_clips_them_or_not_at_all(clip):
    ours, theirs = model_with_gradients(), model_with_gradients()
    with operations() as done:
        norm = guard.measure_and_clip(ours.parameters(), clip)
    assert torch.equal(norm, nn.utils.clip_grad_norm_(theirs.parameters(), clip or torch.inf))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    assert ("_foreach_mul_" in done) == (clip is not None)


def test_a_snapshot_costs_as_many_operations_for_a_deep_network():
    counts = []
    for deep in (1, 40):
        model = model_with_gradients(deep)
        buffers = guard.BufferSnapshot(model)
        before = [buffer.clone() for buffer in model.buffers()]
        vetoed = torch.tensor(True)
        with operations() as done:
            buffers.take()
        with torch.no_grad():
            for buffer in model.buffers():
                buffer.fill_(torch.nan if buffer.is_floating_point() else 9)
        with operations() as undone:
            buffers.restore_where(vetoed)
        assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
        counts.append(len(done + undone))
    assert counts[0] == counts[1]


def votes(loss_of_second: float) -> list[float]:
    from mvssl.distributed.collectives import rank

    loss = torch.tensor(loss_of_second if rank() == 1 else 1.0)
    return guard.collect_vote(loss, torch.tensor(1.0), stop=rank() == 0, bad=2 + rank()).totals.tolist()


def test_a_vote_sums_over_processes(processes):
    assert processes(votes, torch.inf) == [[1.0, 1.0, 5.0, 0.0]] * 2
    assert processes(votes, 1.0) == [[0.0, 1.0, 5.0, 0.0]] * 2
