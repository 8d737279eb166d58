"""CMC: match the embeddings of a sample in two views among all samples of the batch.

in   Features of two or more views     vector [n, d]
out  loss = sum over pairs of views {a, b} of  infoNCE(a -> b) + infoNCE(b -> a),  score = cosine / temperature
Tian et al., 2020, arXiv:1906.05849, section 3 (full graph and core view), with the batch instead of the memory bank

A row that lacks a view is neither anchor nor candidate there.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from mvssl.distributed import collectives
from mvssl.encoders import Features, Widths, at_least_float32
from mvssl.objectives import estimators
from mvssl.objectives.base import Context, Objective, choose_pairs
from mvssl.objectives.metric_names import name_metrics
from mvssl.objectives.scoring.critics import Dot
from mvssl.objectives.scoring.heads import PerView, perceptron
from mvssl.objectives.scoring.masks import blank_absent, same_sample


class CMC(Objective):
    """Contrastive multiview coding, for any number of views.

    `pairs` is full, every pair of views, or the name of the core view that is paired with every other view. `head`
    linear is the paper's, mlp has a hidden layer as wide as the vector. `share_heads`: one head for all views; by
    default the draws of one view share, other views do not.
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

        def build(view: str) -> nn.Module:
            wide = widths[view].vector
            return perceptron(wide, embed) if head == "linear" else perceptron(wide, wide, embed)

        self.project = PerView(widths, {view: width.vector for view, width in widths.items()}, build, share_heads)

    def forward(self, features: dict[str, Features], context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        z = {view: self._embed(view, f, context.present.get(view)) for view, f in features.items()}  # [n, embed]
        anchors = {view: collectives.gather(rows) for view, rows in z.items()}  # [N, embed]
        infonce, metrics = {}, {}
        for a, b in self.pairs:
            infonce[a, b], a_to_b = self._contrast(a, b, anchors[a], z[b], context)
            infonce[b, a], b_to_a = self._contrast(b, a, anchors[b], z[a], context)
            metrics |= name_metrics({name: (a_to_b[name] + b_to_a[name]) / 2 for name in a_to_b}, f"{a}-{b}")
        loss = torch.stack([infonce[a, b] + infonce[b, a] for a, b in self.pairs]).sum()
        return loss, metrics

    def represent(self, view: str, features: Features) -> Tensor:
        """Return the embedding of unit length, [n, embed]."""
        return self._embed(view, features, None)

    def candidates(self, batch: int) -> dict[str, int]:
        return {"samples": batch}

    def _embed(self, view: str, features: Features, present: Tensor | None) -> Tensor:
        vector = blank_absent(at_least_float32(features.vector), present)
        return F.normalize(self.project[view](vector), dim=-1)

    def _contrast(
        self, a: str, b: str, anchors: Tensor, candidates: Tensor, context: Context
    ) -> tuple[Tensor, dict[str, Tensor]]:
        scores = self.critic(anchors, candidates[:, None])  # [N, n, 1]
        mask = same_sample(len(candidates), scores.device, context.present.get(a), context.present.get(b))
        context.observe(a, b, scores, mask)
        return estimators.estimate("infonce", scores, mask)
