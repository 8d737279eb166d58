"""AMDIM: match features of one view of an image with every location of the other view, at several scales.

in   Features of two or more views     vector [n, d] and at least one map [n, c, h, w]
out  loss = sum over scales (source -> target) of the mean over ordered pairs of views of infoNCE + regulariser
     score s = <source, target> / sqrt(embed);  infoNCE reads t tanh(s / t);  regulariser = 0.05 mean s^2
Bachman et al., 2019, arXiv:1906.00910, section 3

Anchors are the sources of all processes, candidates the target maps of this one; maps never travel. Every location of
the same image in the other view is a positive with a softmax of its own, against every location of every other image
there. With a `mixture` the vector becomes several components, which divide these locations among them.
"""

import itertools
import math
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from mvssl.distributed import collectives
from mvssl.encoders import Features, Widths, at_least_float32
from mvssl.errors import RecipeError
from mvssl.objectives import estimators
from mvssl.objectives.base import Context, Objective
from mvssl.objectives.metric_names import name_metrics
from mvssl.objectives.mixture import Components, Mixture, estimate_mixture
from mvssl.objectives.pairs import log_share
from mvssl.objectives.scoring.critics import Dot
from mvssl.objectives.scoring.heads import AMDIMHead, NoHead, PerView, apply_to_present, resolve_view
from mvssl.objectives.scoring.masks import Present, blank_absent, gather_present
from mvssl.objectives.scoring.reductions import Balance, LogSumNegatives, SumNegatives
from mvssl.objectives.scoring.tiled_scores import reduce_scores

Target = Literal["last", "previous"] | int
Source = Literal["vector", "last", "previous"] | int
Scales = Annotated[tuple[tuple[Source, Target], ...], Field(min_length=1)]


class AMDIM(Objective):
    """Augmented multiscale Deep InfoMax, for two views or the mean over all pairs of more.

    `scales` lists source and target. `vector` is the vector, a number that map, `last` the deepest map with at least
    3x3 locations and `previous` the one before it. A map as source gives one random location for each image and step.
    A vector that is `embed` wide is used without a head. `soft_clip` is t (null: none). `share_heads`: one set of heads
    for all views; by default the draws of one view share, other views do not. `mixture: {components: 8}` makes that
    many components of each vector that is a source, as `mvssl.objectives.mixture` describes.
    """

    def __init__(
        self,
        widths: dict[str, Widths],
        *,
        embed: PositiveInt = 1024,
        scales: Scales = (("vector", "last"), ("vector", "previous"), ("last", "last")),
        soft_clip: PositiveFloat | None = 20.0,
        regulariser: NonNegativeFloat = 0.05,
        share_heads: bool | None = None,
        mixture: Mixture | None = None,
    ):
        super().__init__()
        if len(widths) < 2:
            raise RecipeError(
                f"amdim compares views and has only {', '.join(widths)}; "
                "add a view, give this one `count: 2`, or take dim"
            )
        self.scales = [(f"{source}", f"{target}") for source, target in scales]
        self.soft_clip, self.regulariser = soft_clip, regulariser
        self.critic = Dot(1 / math.sqrt(embed))
        self.layer: dict[str, dict[str, int]] = {}  # of each level, the number of its map in each view
        self.locations: dict[str, int] = {}  # of each level, in the first view
        self.heads = nn.ModuleDict()
        for level in dict.fromkeys(itertools.chain(*scales)):
            if level != "vector":
                self.layer[f"{level}"] = {view: resolve_level(width, level, view) for view, width in widths.items()}
                view, number = next(iter(self.layer[f"{level}"].items()))
                self.locations[f"{level}"] = math.prod(widths[view].maps[number][1:])
            self.heads[f"{level}"] = self._build_heads(f"{level}", widths, embed, share_heads)
        self.mixture = mixture
        if mixture is not None:
            if not any(source == "vector" for source, _ in self.scales):
                raise RecipeError("amdim.mixture makes components of the vector, which is no source in amdim.scales")
            self.n_components = mixture.components
            sizes = dict.fromkeys(widths, embed)
            self.components = PerView(widths, sizes, lambda _: Components(embed, self.n_components), share_heads)

    def _build_heads(self, level: str, widths: dict[str, Widths], embed: int, share: bool | None) -> PerView:
        wide = {v: w.vector if level == "vector" else w.maps[self.layer[level][v]][0] for v, w in widths.items()}

        def build(view: str) -> nn.Module:
            return NoHead() if level == "vector" and wide[view] == embed else AMDIMHead(wide[view], embed)

        return PerView(widths, wide, build, share)

    def forward(self, features: dict[str, Features], context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        embedded = {
            (level, view): self._embed(level, view, feature, context)
            for level in self.heads
            for view, feature in features.items()
        }
        anchors = {
            (source, view): collectives.gather(self._source(embedded[source, view], source, view, context))
            for source in dict.fromkeys(source for source, _ in self.scales)
            for view in features
        }
        infonce, regulariser, metrics = [], [], {}  # of each scale and pair, the mean over both directions
        pairs = list(itertools.combinations(features, 2))
        for (source, target), (a, b) in itertools.product(self.scales, pairs):
            a_to_b = self._contrast(anchors[source, a], embedded[target, b], a, b, context)
            b_to_a = self._contrast(anchors[source, b], embedded[target, a], b, a, context)
            measured = {name: (a_to_b[name] + b_to_a[name]) / 2 for name in a_to_b}
            infonce.append(measured.pop("loss"))
            regulariser.append(measured["regulariser"])
            metrics |= name_metrics(measured, f"{a}-{b}", f"{source}-{target}")
        loss = ((torch.stack(infonce) + torch.stack(regulariser)) / len(pairs)).sum()
        return loss, metrics

    def represent(self, view: str, features: Features) -> Tensor:
        """Return the embedded vector, [n, embed]; the vector itself where it is no source."""
        if "vector" not in self.heads:
            return features.vector
        vector = at_least_float32(features.vector)[:, :, None, None]
        return self._head("vector", view)(vector).flatten(1)

    def candidates(self, batch: int) -> dict[str, int]:
        return {f"{source}-{target}": 1 + (batch - 1) * self.locations[target] for source, target in self.scales}

    def segments(self, view: str, features: Features) -> dict[str, Tensor]:
        """Return q [n, k, h, w] of each map that is a target of the vector.

        Pass a batch: its other images are the negatives of each image.
        """
        if self.mixture is None:
            return super().segments(view, features)
        components = self.components[view](self.represent(view, features))  # [n, k, embed]
        segments = {}
        for target in dict.fromkeys(target for source, target in self.scales if source == "vector"):
            fmap = at_least_float32(features.maps[self.layer[target][resolve_view(view, self.layer[target])]])
            places = self._head(target, view)(fmap)
            own, (log_sums,) = reduce_scores(
                components, places, Present(), [LogSumNegatives(self._clip)], scale=self.critic.scale
            )
            s = log_share(self._clip(own), log_sums.view(components.shape[:2])[:, None])  # [n, h * w, k]
            q = (self.mixture.sharpness * s).softmax(dim=-1)
            segments[target] = q.transpose(1, 2).unflatten(2, fmap.shape[2:])
        return segments

    def _head(self, level: str, view: str) -> nn.Module:
        return self.heads[level][view]  # pyright: ignore[reportIndexIssue]

    def _embed(self, level: str, view: str, feature: Features, context: Context) -> Tensor:
        """[n, l, embed] of one level of one view."""
        present = context.present.get(view)
        x = feature.vector[:, :, None, None] if level == "vector" else feature.maps[self.layer[level][view]]
        return apply_to_present(self._head(level, view), blank_absent(at_least_float32(x), present), present)

    def _source(self, embedded: Tensor, level: str, view: str, context: Context) -> Tensor:
        """[n, embed]: one random location of each row; of a vector with a mixture its components, [n, k, embed]."""
        n, locations, _ = embedded.shape
        place = context.draws.within(f"amdim/{view}", embedded.device).integers(level, locations)
        picked = embedded[torch.arange(n, device=embedded.device), place.view(n)]
        return self.components[view](picked) if level == "vector" and self.mixture else picked

    def _contrast(self, anchors: Tensor, candidates: Tensor, a: str, b: str, context: Context) -> dict[str, Tensor]:
        """infoNCE of one source in view a with one target map in view b, and the penalty on its scores."""
        present = gather_present(context.present.get(a), context.present.get(b), candidates.device)
        watched = context.watches(a, b) and anchors.dim() == 2
        reductions = [LogSumNegatives(self._clip), SumNegatives(torch.square), *[Balance()] * watched]
        own, (log_sums, squares, *balances) = reduce_scores(
            anchors, candidates, present, reductions, scale=self.critic.scale
        )
        own, (n, places, _) = present.blank(own), candidates.shape  # [n, l, k], k = 1 without a mixture
        for balance in balances:
            context.observe_share(a, b, present.share_outscored(balance.view(n, places)))

        here, everywhere = present.count_candidates(own), collectives.sum_over_processes(present.count_candidates(own))
        pairs = present.count_anchors(own) * here * own[0].numel()
        size = collectives.mean(squares + own.square().sum(), pairs)
        against = collectives.logsumexp(log_sums).view(len(anchors), -1)[collectives.own_rows(n)]  # [n, k]
        number = 1 + (everywhere - 1).clamp(min=0) * places
        if self.mixture and anchors.dim() == 3:
            s = log_share(self._clip(own), against[:, None])
            loss, metrics = estimate_mixture(s, number.log(), present.both, self.mixture)
        else:
            loss, metrics = estimators.contrast(self._clip(own[..., 0]), against, number.log(), present.both)
        return {"loss": loss, "regulariser": self.regulariser * size} | metrics

    def _clip(self, scores: Tensor) -> Tensor:
        return scores if self.soft_clip is None else self.soft_clip * torch.tanh(scores / self.soft_clip)


def resolve_level(width: Widths, level: str | int, view: str) -> int:
    """Return the number of the map that a level names. Raises `RecipeError` if the view's encoder has none."""
    count = len(width.maps)
    if isinstance(level, int):
        if -count <= level < count:
            return level % count
        raise RecipeError(f"amdim.scales: view {view!r} has {count} maps, numbered from 0; there is no map {level}")
    large = [number for number, (_, h, w) in enumerate(width.maps) if h * w >= 9]
    back = 1 if level == "last" else 2
    if len(large) < back:
        raise RecipeError(
            f"amdim.scales: {level!r} needs {back} map(s) of at least 3x3 locations, view {view!r} has {len(large)}: "
            "take a larger image or an encoder with less stride, or name maps by number, as in scales: [[vector, 0]]"
        )
    return large[-back]
