"""Which pairs of samples are positives and negatives, and which rows count where views are missing.

in   rows of this process, and for each view that samples may lack a bool [n], on the CPU, of the rows that have it
out  `Present` rows of both views on the device; masks int8 [N, n, 1] between the N anchors of all processes and the n
     candidate samples of this process
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mvssl.distributed import collectives
from mvssl.distributed.devices import send
from mvssl.objectives.pairs import IGNORE, NEGATIVE, POSITIVE


class Present(NamedTuple):
    """The rows that have the view of the anchors, bool [N] of all processes, and that of the candidates, bool [n].

    Both are on the device. None means all rows.
    """

    anchors: Tensor | None = None
    candidates: Tensor | None = None

    @property
    def both(self) -> Tensor | None:
        """The rows of this process that have both views, bool [n]; None means all."""
        if self.anchors is None:
            return self.candidates
        own = collectives.own_rows(len(self.anchors) // collectives.world_size())
        return present_in_both(self.anchors[own], self.candidates)

    def blank(self, x: Tensor, value: float = 0.0) -> Tensor:
        """Return x [n, ...] with `value` in the rows that lack a view."""
        both = self.both
        return x if both is None else x.masked_fill(~both.view(-1, *[1] * (x.dim() - 1)), value)

    def count_anchors(self, like: Tensor) -> Tensor:
        """Return the number of present anchors of all processes, 0-d; `like` [n, ...] are the rows of this process."""
        if self.anchors is None:
            return like.new_full((), len(like) * collectives.world_size())
        return self.anchors.sum().to(like)

    def share_outscored(self, balance: Tensor) -> Tensor:
        """Return `Pairs.outscored_share` [n], if of each candidate's negatives `balance` [n, l] more score higher than
        its own anchor than score lower."""
        negatives = self.count_anchors(balance) - 1
        return self.blank((1 + balance / negatives).mean(1) / 2, torch.nan)

    def count_candidates(self, like: Tensor) -> Tensor:
        """Return the number of present candidates of this process, 0-d; `like` [n, ...] are its rows."""
        return like.new_full((), len(like)) if self.candidates is None else self.candidates.sum().to(like)


def gather_present(anchors: Tensor | None, candidates: Tensor | None, device: torch.device) -> Present:
    """Return the rows present on the device, from bool [n] on the CPU of this process, or None for all."""
    if anchors is not None:
        anchors = collectives.gather(send(anchors, device).to(torch.int8)).bool()
    return Present(anchors, None if candidates is None else send(candidates, device))


def same_sample(n: int, device: torch.device, present: Present) -> Tensor:
    """Return int8 [N, n, 1]: POSITIVE for one sample, NEGATIVE for two, IGNORE where either row is absent."""
    mask = torch.full((n * collectives.world_size(), n, 1), NEGATIVE, dtype=torch.int8, device=device)
    mask[collectives.own_rows(n)].diagonal().fill_(POSITIVE)
    if present.anchors is not None:
        mask = mask.masked_fill(~present.anchors[:, None, None], IGNORE)
    if present.candidates is not None:
        mask = mask.masked_fill(~present.candidates[None, :, None], IGNORE)
    return mask


def present_in_both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Return the rows, bool [n], that both views have; None means all."""
    return a if b is None else b if a is None else a & b


def mean_rows(x: Tensor, present: Tensor | None) -> Tensor:
    """Return the mean of [n] over the present rows of all processes; 0 where no process has one."""
    rows = torch.ones_like(x, dtype=torch.bool) if present is None else send(present, x.device)
    return collectives.mean(x.masked_fill(~rows, 0).sum(), rows.sum())


def blank_absent(x: Tensor, present: Tensor | None) -> Tensor:
    """Return x with zeros in absent rows, so that their values change neither the loss nor a gradient."""
    return x if present is None else x.masked_fill(~send(present, x.device).view(-1, *[1] * (x.dim() - 1)), 0)
