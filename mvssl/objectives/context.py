"""What an objective may ask for besides features, and which pairs of samples are the same one.

in   the step, the batch's sample numbers, its stateless draws, and which rows have which view
out  masks int8 [N, n, 1] between the N anchors of all processes and the n candidate samples of this process
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mvssl.distributed import collectives
from mvssl.distributed.devices import send
from mvssl.objectives.estimators import IGNORE, NEGATIVE, POSITIVE
from mvssl.objectives.partners import Partners
from mvssl.random import Draws


@dataclass(frozen=True)
class Context:
    """What an objective knows of the batch besides its features.

    `present` holds a bool [n], on the CPU, for each view that some samples lack; a view that is not in it is complete.
    Where a row is False the features of that view are arbitrary and must not reach the loss. `partners`, if given,
    takes note of the scores of pairs of views.
    """

    step: int
    index: Tensor
    draws: Draws
    present: dict[str, Tensor] = field(default_factory=dict)
    partners: Partners | None = None

    def note(self, a: str, b: str, scores: Tensor, mask: Tensor) -> None:
        """Tell whoever looks for mispaired samples how anchors of view a score with candidates of view b."""
        if self.partners is not None:
            self.partners.note(a, b, scores, mask)


def same_sample(n: int, device: torch.device, anchors: Tensor | None, candidates: Tensor | None) -> Tensor:
    """int8 [N, n, 1]: POSITIVE for the same sample, NEGATIVE for two, IGNORE where either row is absent.

    `anchors` and `candidates` are the `present` rows (bool [n], or None for all) of the two views on this process.
    """
    mask = torch.full((n * collectives.world(), n, 1), NEGATIVE, dtype=torch.int8, device=device)
    mask[collectives.own_rows(n)].diagonal().fill_(POSITIVE)
    return only_present(mask, anchors, candidates)


def only_present(mask: Tensor, anchors: Tensor | None, candidates: Tensor | None) -> Tensor:
    """The mask [N, n, 1] with IGNORE for every anchor and candidate that is absent."""
    if anchors is not None:
        everyone = collectives.gather(send(anchors, mask.device).to(mask)).bool()
        mask = mask.masked_fill(~everyone[:, None, None], IGNORE)
    if candidates is not None:
        mask = mask.masked_fill(~send(candidates, mask.device)[None, :, None], IGNORE)
    return mask


def both(here: Tensor | None, there: Tensor | None) -> Tensor | None:
    """Rows where both views are present; None means all."""
    return here if there is None else there if here is None else here & there


def mean_rows(x: Tensor, present: Tensor | None) -> Tensor:
    """Mean of [n] over the present rows of all processes; 0 where nobody has one."""
    rows = torch.ones_like(x, dtype=torch.bool) if present is None else send(present, x.device)
    return collectives.mean(x.masked_fill(~rows, 0).sum(), rows.sum())


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision raised to float32; float32 and float64 as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
