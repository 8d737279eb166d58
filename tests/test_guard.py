"""A vetoed step leaves no trace, and a vote counts every process."""

import torch
from torch import nn

from mvssl import guard


def test_a_vetoed_step_changes_neither_weights_nor_moments_nor_running_statistics():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    buffers = guard.Buffers(model)
    x = torch.randn(4, 3)
    for poison, vetoed in ((1.0, False), (torch.nan, True), (1.0, False)):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        moments = [v.clone() for state in optimizer.state.values() for v in state.values()]
        buffers.remember()
        loss = model(x * poison).square().sum() * 0.1
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        verdict = guard.vote(loss.detach(), norm, stop=False, bad=0)
        guard.step_unless(verdict[0] > 0, optimizer, 1e-2)
        buffers.restore_where(verdict[0] > 0)
        same = [torch.equal(value, before[name]) for name, value in model.state_dict().items()]
        assert all(same) if vetoed else not any(same)
        if vetoed:
            after = [v for state in optimizer.state.values() for v in state.values()]
            assert all(torch.equal(a, b) for a, b in zip(moments, after, strict=True))


def votes(loss_of_second: float) -> list[float]:
    from mvssl.distributed import rank

    loss = torch.tensor(loss_of_second if rank() == 1 else 1.0)
    return guard.vote(loss, torch.tensor(1.0), stop=rank() == 0, bad=2 + rank()).tolist()


def test_a_vote_sums_over_processes(processes):
    assert processes(votes, torch.inf) == [[1.0, 1.0, 5.0]] * 2
    assert processes(votes, 1.0) == [[0.0, 1.0, 5.0]] * 2
