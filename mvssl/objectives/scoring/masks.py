"""Which pairs of samples are positives and negatives, and which rows count where views are missing.

in   rows of this process, and for each view that samples may lack a bool [n], on the CPU, of the rows that have it
out  masks int8 [N, n, 1] between the N anchors of all processes and the n candidate samples of this process
"""

import torch
from torch import Tensor

from mvssl.distributed import collectives
from mvssl.distributed.devices import send
from mvssl.objectives.estimators import IGNORE, NEGATIVE, POSITIVE


def same_sample(n: int, device: torch.device, anchors: Tensor | None, candidates: Tensor | None) -> Tensor:
    """Return int8 [N, n, 1]: POSITIVE for one sample, NEGATIVE for two, IGNORE where either row is absent.

    `anchors` and `candidates` are the `present` rows (bool [n], or None for all) of the two views on this process.
    """
    mask = torch.full((n * collectives.world_size(), n, 1), NEGATIVE, dtype=torch.int8, device=device)
    mask[collectives.own_rows(n)].diagonal().fill_(POSITIVE)
    return ignore_absent(mask, anchors, candidates)


def ignore_absent(mask: Tensor, anchors: Tensor | None, candidates: Tensor | None) -> Tensor:
    """Return the mask [N, n, 1] with IGNORE for every anchor and candidate that is absent."""
    if anchors is not None:
        all_present = collectives.gather(send(anchors, mask.device).to(mask)).bool()
        mask = mask.masked_fill(~all_present[:, None, None], IGNORE)
    if candidates is not None:
        mask = mask.masked_fill(~send(candidates, mask.device)[None, :, None], IGNORE)
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
