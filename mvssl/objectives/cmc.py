"""CMC: the embeddings of one sample in two views should find each other among all samples of the batch.

in   Features of two or more views     vector [n, d]
out  loss = sum over pairs of views {a, b} of  infoNCE(a -> b) + infoNCE(b -> a),  score = cosine / temperature
Tian et al., 2020, arXiv:1906.05849, section 3 (full graph and core view), with the batch in place of the memory bank

A row that lacks a view is neither anchor nor candidate there.
"""

import itertools
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from mvssl.distributed import collectives
from mvssl.encoders.encoder import Features, Widths
from mvssl.errors import RecipeError
from mvssl.objectives import estimators
from mvssl.objectives.context import Context, at_least_float32, same_sample
from mvssl.objectives.critics import Dot
from mvssl.objectives.heads import PerView, blank, perceptron


class CMC(nn.Module):
    """Contrastive multiview coding, for any number of views.

    `pairs` is full, every pair of views, or the name of the core view that every other is paired with. `head`
    linear is the paper's, mlp has a hidden layer as wide as the vector. `share_heads`: one head for all views; by
    default the draws of one view share, others do not.
    """

    def __init__(
        self,
        widths: dict[str, Widths],
        *,
        pairs: str = "full",
        temperature: PositiveFloat = 0.07,
        embed: PositiveInt = 128,
        head: Literal["linear", "mlp"] = "linear",
        share_heads: bool | None = None,
    ):
        super().__init__()
        self.pairs = choose_pairs(list(widths), pairs, "cmc")
        self.critic = Dot(1 / temperature)

        def make(view: str) -> nn.Module:
            wide = widths[view].vector
            return perceptron(wide, embed) if head == "linear" else perceptron(wide, wide, embed)

        self.project = PerView(widths, {view: width.vector for view, width in widths.items()}, make, share_heads)

    def forward(self, features: dict[str, Features], context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        z = {view: self._embed(view, f, context.present.get(view)) for view, f in features.items()}  # [n, embed]
        everyone = {view: collectives.gather(rows) for view, rows in z.items()}  # [N, embed]
        losses, metrics = [], {}
        for a, b in self.pairs:
            forth, measured = self._contrast(a, b, everyone[a], z[b], context)
            back, measured_back = self._contrast(b, a, everyone[b], z[a], context)
            metrics |= {f"{name}/{a}-{b}": (measured[name] + measured_back[name]) / 2 for name in measured}
            losses.append(forth + back)
        return torch.stack(losses).sum(), metrics

    def represent(self, view: str, features: Features) -> Tensor:
        """The embedding of unit length, [n, embed]."""
        return self._embed(view, features, None)

    def candidates(self, batch: int) -> dict[str, int]:
        """What an anchor is compared with, of a batch over all processes."""
        return {"samples": batch}

    def _embed(self, view: str, features: Features, present: Tensor | None) -> Tensor:
        vector = blank(at_least_float32(features.vector), present)
        return F.normalize(self.project[view](vector), dim=-1)

    def _contrast(self, a: str, b: str, anchors: Tensor, candidates: Tensor, context: Context):
        scores = self.critic(anchors, candidates[:, None])
        mask = same_sample(len(candidates), scores.device, context.present.get(a), context.present.get(b))
        context.note(a, b, scores, mask)
        return estimators.estimate("infonce", scores, mask)


def choose_pairs(views: list[str], pairs: str, where: str) -> list[tuple[str, str]]:
    """Pairs of views: every one, or those with the core view. Raises `RecipeError`."""
    if len(views) < 2:
        raise RecipeError(
            f"{where} compares views and has only {', '.join(views)}; add a view, or give this one `count: 2`"
        )
    if pairs == "full":
        return list(itertools.combinations(views, 2))
    if pairs not in views:
        raise RecipeError(f"{where}.pairs: no view {pairs!r}; it takes full or one of {', '.join(views)}")
    return [(pairs, view) for view in views if view != pairs]
