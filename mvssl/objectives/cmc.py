"""CMC: match the embeddings of a sample in two views among all samples of the batch.

in   Features of two or more views     vector [n, d]
out  loss = sum over pairs of views {a, b} of  infoNCE(a -> b) + infoNCE(b -> a),  score = cosine / temperature
     infoNCE(a -> b) = -mean over samples of log e^s / (e^s + sum of e^s' over the other samples in b)
Tian et al., 2020, arXiv:1906.05849, section 3 (full graph and core view), with the batch instead of the memory bank

A row that lacks a view is neither anchor nor candidate there. The scores of a -> b are those of b -> a, so they are
computed once, and tile by tile.
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
from mvssl.objectives.scoring.masks import Present, blank_absent, gather_present
from mvssl.objectives.scoring.reductions import LogSumBothSides, LogSumNegatives
from mvssl.objectives.scoring.tiled_scores import reduce_scores


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
        anchors = {a: collectives.gather(z[a]) for a in dict.fromkeys(a for a, _ in self.pairs)}  # [N, embed]
        losses, metrics = [], {}
        for a, b in self.pairs:
            present = gather_present(context.present.get(a), context.present.get(b), z[a].device)
            own, against = self._score(anchors[a], z[b], present)
            if context.watches(a, b):
                self._observe(a, b, z, context)
                self._observe(b, a, z, context)
            n_a, n_b = present.count_anchors(own), collectives.sum_over_processes(present.count_candidates(own))
            ceiling = (n_a.clamp(min=1).log() + n_b.clamp(min=1).log()) / 2
            infonce, measured = estimators.contrast(own, against, ceiling, present.both)  # the mean of both directions
            losses.append(2 * infonce)
            metrics |= name_metrics(measured, f"{a}-{b}")
        return torch.stack(losses).sum(), metrics

    def represent(self, view: str, features: Features) -> Tensor:
        """Return the embedding of unit length, [n, embed]."""
        return self._embed(view, features, None)

    def candidates(self, batch: int) -> dict[str, int]:
        return {"samples": batch}

    def _embed(self, view: str, features: Features, present: Tensor | None) -> Tensor:
        vector = blank_absent(at_least_float32(features.vector), present)
        return F.normalize(self.project[view](vector), dim=-1)

    def _score(self, anchors: Tensor, candidates: Tensor, present: Present) -> tuple[Tensor, Tensor]:
        """Scores of the own pairs, and the log-sums of their negatives, both [n, 2]: a -> b, then b -> a.

        The rows of the matrix of scores [N, n] are the anchors of one direction, its columns those of the other.
        """
        bounded = self.critic.scale <= LogSumBothSides.LARGEST  # the embeddings have unit length
        log_sums = [LogSumBothSides()] if bounded else [LogSumNegatives(), LogSumNegatives(of_columns=True)]
        own, results = reduce_scores(anchors, candidates[:, None], present, log_sums, scale=self.critic.scale)
        rows, columns = torch.cat(results).split([len(anchors), len(candidates)])
        rows = collectives.logsumexp(rows)[collectives.own_rows(len(candidates))]
        return own[..., 0].expand(-1, 2), torch.stack([rows, columns], dim=1)

    @torch.no_grad()
    def _observe(self, a: str, b: str, z: dict[str, Tensor], context: Context) -> None:
        """Tell the observer how often the negatives of each candidate outscore its own anchor."""
        present = gather_present(context.present.get(a), context.present.get(b), z[b].device)
        pairs = self.critic.pair(collectives.gather(z[a]), z[b][:, None], present)
        context.observe_share(a, b, pairs.outscored_share())
