"""Which samples go on finding strangers as fitting as their own partner: a memory of the scores of training itself.

in   in every step, the share of strangers that fit each sample better than its partner (`mvssl.objectives.partners`)
out  for each sample and pair of views the mean over its latest visits, and for how many in a row it stood near chance

Every step looks at fresh draws of the views, and noise in one look is averaged away over many; looks at a network's end
alone also miss what it has learned by heart. Nothing here waits for the device, and every process holds the same.
"""

import itertools
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from mvssl.distributed import collectives
from mvssl.distributed.devices import send
from mvssl.objectives.partners import Partners
from mvssl.recipe import View
from mvssl.views.naming import drawn

FADE = 0.95  # what a visit still weighs at the next: the mean is that of about 20
CHANCE = 0.1  # from this share of strangers ahead on, a sample stands near chance, which is 1/2
LIMIT = 20_000_000  # samples; three numbers for each pair of views and sample
FILE = "matching.safetensors"


def pairs_of(views: dict[str, View]) -> dict[tuple[str, str], str]:
    """Pairs of drawn views that come from different columns, and so can be mispaired, by the recipe's names."""
    found = {}
    for a, b in itertools.combinations(views, 2):
        if views[a].source != views[b].source:
            for pair in itertools.product(drawn(a, views[a].count), drawn(b, views[b].count)):
                found[pair] = f"{a}-{b}"
    return found


def start(views: dict[str, View], samples: int, device: torch.device) -> "Matching | None":
    """An empty memory, where views come from several columns and there are not too many samples."""
    return Matching(views, samples, device) if pairs_of(views) and samples <= LIMIT else None


class Matching:
    """The memory of a run: `total` and `weight` [pairs, samples], whose quotient is the mean, and `chance`."""

    def __init__(self, views: dict[str, View], samples: int, device: torch.device):
        self.names = pairs_of(views)
        self.pairs = list(dict.fromkeys(self.names.values()))
        size = len(self.pairs), samples
        self.total, self.weight = torch.zeros(size, device=device), torch.zeros(size, device=device)
        self.chance = torch.zeros(size, device=device)
        self.visits = torch.zeros(samples, device=device)

    def partners(self) -> Partners:
        """What objectives note into during a step."""
        return Partners(self.names)

    @torch.no_grad()
    def update(self, index: Tensor, partners: Partners, vetoed: Tensor) -> None:
        """Take in a step's shares of the samples `index` [n] of this process, unless `vetoed` (0-d bool)."""
        shares, device = partners.shares(), self.total.device
        if not shares:
            return
        missing = torch.full((len(index),), torch.nan, device=device)
        mine = torch.stack([shares.get(pair, missing).float() for pair in self.pairs], dim=1)
        rows = collectives.gather(send(index, device))
        share = collectives.gather(mine).T  # [pairs, N]
        kept = share.isfinite() & ~vetoed
        fade = torch.where(kept, FADE, 1.0)
        # A sample may stand twice in a batch, where an epoch ends: it then fades once and is added twice.
        for memory, new in ((self.total, torch.where(kept, share, 0.0)), (self.weight, kept.float())):
            memory[:, rows] = memory[:, rows] * fade
            memory.index_add_(1, rows, new)
        near = self.total[:, rows] >= CHANCE * self.weight[:, rows]
        self.chance[:, rows] = torch.where(kept, torch.where(near, self.chance[:, rows] + 1, 0.0), self.chance[:, rows])
        self.visits.index_add_(0, rows, kept.any(0).float())

    def means(self) -> Tensor:
        """[pairs, samples] on the CPU, float64; NaN where a sample was never seen with both views."""
        return self.total.cpu().double() / self.weight.cpu().double()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"total": self.total, "weight": self.weight, "chance": self.chance, "visits": self.visits}

    def restore(self, checkpoint: Path) -> None:
        """Go on from a checkpoint; one that was saved without this memory leaves it empty."""
        file = checkpoint / FILE
        if file.is_file():
            for name, value in load_file(file).items():
                if value.shape == self.state()[name].shape:
                    self.state()[name].copy_(value)
