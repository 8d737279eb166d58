"""How well the views of a sample fit each other, beside how well those of strangers do: read off an objective's scores.

in   scores [N, n, l] of anchors and candidates and their mask, in the step that computes the loss from them
out  for each candidate sample the share of strangers' anchors that score higher than its own: 0 at best, 1/2 by chance
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from mvssl.objectives.estimators import NEGATIVE, POSITIVE


class Partners:
    """Collects shares in a step for pairs of views; `names` says which, and under what name: {("a_0", "b"): "a-b"}."""

    def __init__(self, names: Mapping[tuple[str, str], str]):
        self.names = names
        self.noted: dict[str, list[Tensor]] = {}

    def note(self, a: str, b: str, scores: Tensor, mask: Tensor) -> None:
        """Scores of anchors of view a with candidates of view b; pairs that nobody asked for are passed over."""
        name = self.names.get((a, b)) or self.names.get((b, a))
        if name is not None and len(scores) == len(mask):
            self.noted.setdefault(name, []).append(share_ahead(scores.detach(), mask))

    def shares(self) -> dict[str, Tensor]:
        """[n] by pair: the mean of what was noted, NaN where a sample lacks a view."""
        return {name: torch.stack(noted).mean(0) for name, noted in self.noted.items()}


def share_ahead(scores: Tensor, mask: Tensor) -> Tensor:
    """[n], mean over locations; anchors that score the same count half. NaN without a partner or without strangers."""
    mask = mask.expand_as(scores)
    strange, own = mask == NEGATIVE, mask == POSITIVE
    partner = scores.masked_fill(~own, 0).sum(0) / own.sum(0)  # [n, l]
    ahead = ((scores > partner) + 0.5 * (scores == partner)).masked_fill(~strange, 0).sum(0)
    return (ahead / strange.sum(0) + 0 * partner).mean(1)
