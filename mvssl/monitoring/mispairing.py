"""Tracks how often a sample's negatives outscore its positive, from the scores of training itself.

in   in every step, scores [N, n, l] of anchors and candidates and their mask, or the shares themselves, [n], from the
     objective
out  for each sample and pair of views the mean share over its latest visits, and for how many in a row it was near
     chance

Every step sees fresh draws of the views, so the mean over many steps has little noise. Scores at the end of a run would
miss mispaired samples that the network has memorised. Nothing here waits for the device, and every process holds the
same values.
"""

import itertools
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from mvssl.distributed import collectives
from mvssl.distributed.devices import send
from mvssl.objectives.pairs import MaskedScores
from mvssl.recipe import ViewConfig
from mvssl.recipe.draw_names import list_draw_names

FADE = 0.95  # weight of a visit at the next one, so that the mean is over about 20
CHANCE = 0.1  # from this share on, a sample is near chance, which is 1/2
LIMIT = 20_000_000  # samples; three numbers for each pair of views and sample


def pairs_of(views: dict[str, ViewConfig]) -> dict[tuple[str, str], str]:
    """Return the pairs of drawn views of different columns, which can be mispaired, with the recipe's names."""
    found = {}
    for a, b in itertools.combinations(views, 2):
        if views[a].source != views[b].source:
            for pair in itertools.product(list_draw_names(a, views[a].count), list_draw_names(b, views[b].count)):
                found[pair] = f"{a}-{b}"
    return found


def start_tracking(views: dict[str, ViewConfig], samples: int, device: torch.device) -> "MispairingTracker | None":
    """Return an empty tracker; None if all views come from one column or there are too many samples."""
    return MispairingTracker(views, samples, device) if pairs_of(views) and samples <= LIMIT else None


class MispairingTracker:
    """A `ScoreObserver` that remembers for each sample and pair of views how often negatives outscore the positive.

    `total` / `weight` [pairs, samples] is the mean; `chance` counts the visits in a row near chance.
    """

    file = "matching.safetensors"  # of its state in a checkpoint

    def __init__(self, views: dict[str, ViewConfig], samples: int, device: torch.device):
        self.names = pairs_of(views)
        self.pairs = list(dict.fromkeys(self.names.values()))
        size = len(self.pairs), samples
        self.total, self.weight = torch.zeros(size, device=device), torch.zeros(size, device=device)
        self.chance = torch.zeros(size, device=device)
        self.visits = torch.zeros(samples, device=device)
        self.shares: dict[str, list[Tensor]] = {}  # of the step in progress

    def observe(self, view_a: str, view_b: str, scores: Tensor, mask: Tensor) -> None:
        """Add scores [N, n, l]. Other pairs of views, and scores of the components of a mixture, are ignored."""
        if self.watches(view_a, view_b) and len(scores) == len(mask):
            self.observe_share(view_a, view_b, MaskedScores(scores.detach(), mask).outscored_share())

    def watches(self, view_a: str, view_b: str) -> bool:
        """Return whether these views can be mispaired."""
        return (view_a, view_b) in self.names or (view_b, view_a) in self.names

    def observe_share(self, view_a: str, view_b: str, share: Tensor) -> None:
        """Add the share [n] of one direction. Other pairs of views are ignored."""
        name = self.names.get((view_a, view_b)) or self.names.get((view_b, view_a))
        if name is not None:
            self.shares.setdefault(name, []).append(share)

    @torch.no_grad()
    def end_step(self, index: Tensor, vetoed: Tensor) -> None:
        """Add the shares of this step for the samples `index` [n] of this process, unless `vetoed` (0-d bool)."""
        shares, device = {name: torch.stack(shares).mean(0) for name, shares in self.shares.items()}, self.total.device
        self.shares = {}
        if not shares:
            return
        missing = torch.full((len(index),), torch.nan, device=device)
        mine = torch.stack([shares.get(pair, missing).float() for pair in self.pairs], dim=1)
        rows = collectives.gather(send(index, device))
        share = collectives.gather(mine).T  # [pairs, N]
        kept = share.isfinite() & ~vetoed
        fade = torch.where(kept, FADE, 1.0)
        # At the end of an epoch a sample may occur twice in a batch: it then fades once and is added twice.
        for memory, new in ((self.total, torch.where(kept, share, 0.0)), (self.weight, kept.float())):
            memory[:, rows] = memory[:, rows] * fade
            memory.index_add_(1, rows, new)
        near = self.total[:, rows] >= CHANCE * self.weight[:, rows]
        self.chance[:, rows] = torch.where(kept, torch.where(near, self.chance[:, rows] + 1, 0.0), self.chance[:, rows])
        self.visits.index_add_(0, rows, kept.any(0).float())

    def means(self) -> Tensor:
        """Return the mean shares [pairs, samples] on the CPU, float64; NaN if a sample never had both views."""
        return self.total.cpu().double() / self.weight.cpu().double()

    def state(self) -> dict[str, Tensor]:
        """Return what a checkpoint keeps."""
        return {"total": self.total, "weight": self.weight, "chance": self.chance, "visits": self.visits}

    def restore(self, checkpoint: Path) -> None:
        """Read the state from the folder of a checkpoint; without its file the tracker stays empty."""
        file = checkpoint / self.file
        if file.is_file():
            for name, value in load_file(file).items():
                if value.shape == self.state()[name].shape:
                    self.state()[name].copy_(value)
