"""DIM: a view's global vector should recognise its own image's local features among everybody's.

in   Features of each view     a map [n, c, h, w] and the vector [n, d]
out  loss = local_weight * local + global_weight * global + prior, the mean over views
Hjelm et al., 2019, arXiv:1808.06670. local: the vector against every location of the map (section 3.2); global:
against the map as a whole (3.1); prior: the code looks uniform to a discriminator (3.3). Views do not meet each
other.

Anchors are the vectors of all processes, candidates the maps of this one, which never travel. Every location of the
anchor's own image is a positive, every location of another image a negative.
"""

import math
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from mvssl.distributed import collectives
from mvssl.encoders.encoder import Features, Widths
from mvssl.errors import RecipeError
from mvssl.objectives import estimators
from mvssl.objectives.context import Context, at_least_float32, mean_rows, same_sample
from mvssl.objectives.critics import ConcatMLP, Dot
from mvssl.objectives.heads import AsItIs, DIMHead, FlatHead, PerView, blank, on_present
from mvssl.objectives.mine import Estimator, Rate
from mvssl.objectives.prior import Prior
from mvssl.random import Draws


class DIM(nn.Module):
    """Deep InfoMax, for one view or the mean over several.

    `layer` is the number of the map; by default the deepest with at least 7x7 locations, else the first. `critic`
    dot puts a network of `units` on either side, concat is one perceptron on both. `subsample` scores that many
    random locations of each image instead of all. `share_heads`: one set of heads for all views; by default the
    draws of one view share, others do not.
    Options that follow the public code: `mask_value: -10` counts the anchor's own locations as that score among
    infonce's candidates; `vector_penalty` adds that much mean |embedded vector|^2.
    """

    def __init__(
        self,
        widths: dict[str, Widths],
        *,
        local_weight: NonNegativeFloat = 1.0,
        global_weight: NonNegativeFloat = 0.0,
        prior_weight: NonNegativeFloat = 0.0,
        layer: int | None = None,
        estimator: estimators.Name = "jsd",
        smile_clip: PositiveFloat = 5.0,
        mine_rate: Rate = 0.01,
        critic: Literal["dot", "concat"] = "dot",
        units: PositiveInt = 2048,
        subsample: PositiveInt | None = None,
        share_heads: bool | None = None,
        mask_value: float | None = None,
        vector_penalty: NonNegativeFloat = 0.0,
    ):
        super().__init__()
        if mask_value is not None and estimator != "infonce":
            raise RecipeError(f"dim.mask_value belongs to estimator infonce, not {estimator}")
        self.weights = {"local": local_weight, "global": global_weight, "prior": prior_weight}
        if not any(self.weights.values()):
            raise RecipeError("dim: local_weight, global_weight and prior_weight are all 0; at least one must not be")
        self.subsample, self.vector_penalty = subsample, vector_penalty

        self.layer: dict[str, int] = {}
        if local_weight or global_weight:
            self.layer = {view: choose_layer(width, layer, view) for view, width in widths.items()}
        sizes = {view: (widths[view].vector, widths[view].maps[number]) for view, number in self.layer.items()}
        for view, (_, (_, h, w)) in sizes.items():
            if subsample is not None and subsample > h * w:
                raise RecipeError(
                    f"dim.subsample: {subsample} of the {h * w} locations of view {view!r}; give fewer, or leave it out"
                )
        self.locations = {view: subsample or h * w for view, (_, (_, h, w)) in sizes.items()}
        self.scores = nn.ModuleDict()
        if local_weight:
            channels = {view: (d, c) for view, (d, (c, _, _)) in sizes.items()}
            self.scores["local"] = PerView(
                widths, channels, lambda view: local(*sizes[view], critic, units), share_heads
            )
        if global_weight:
            self.scores["global"] = PerView(widths, sizes, lambda view: whole(*sizes[view], critic, units), share_heads)
        keys = [f"{view}/{part}" for view in widths for part in self.scores]
        self.estimator = Estimator(estimator, keys, clip=smile_clip, rate=mine_rate, mask_value=mask_value)
        if prior_weight:
            vectors = {view: width.vector for view, width in widths.items()}
            self.prior = PerView(widths, vectors, lambda view: Prior(vectors[view]), share_heads)

    def forward(self, features: dict[str, Features], context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        terms, metrics = [], {}
        for view, feature in features.items():
            for part in self.scores:
                loss, measured = self._information(part, view, feature, context)
                terms.append(self.weights[part] * loss)
                metrics |= {f"{name}/{view}/{part}": value for name, value in measured.items()}
            if self.weights["prior"]:
                loss, measured = self._prior(view, at_least_float32(feature.vector), context)
                terms.append(loss)
                metrics |= {f"{name}/{view}": value for name, value in measured.items()}
        return torch.stack(terms).sum() / len(features), metrics

    def candidates(self, batch: int) -> dict[str, int]:
        """What an anchor is compared with, of a batch over all processes: a positive, and all of the other images."""
        return {
            f"{part} {view}": 1 + (batch - 1) * (count if part == "local" else 1)
            for part in self.scores
            for view, count in self.locations.items()
        }

    def represent(self, view: str, features: Features) -> Tensor:
        """The vector itself, [n, d]."""
        return features.vector

    def _information(self, part: str, view: str, feature: Features, context: Context):
        present = context.present.get(view)
        vector, chart = map(at_least_float32, (feature.vector, feature.maps[self.layer[view]]))
        if part == "local" and self.subsample:
            chart = pick(chart, self.subsample, context.draws.within(f"dim/{view}", chart.device))
        scores, anchors = self.scores[part][view](vector, chart, present)  # pyright: ignore
        mask = same_sample(len(chart), scores.device, present, present)
        loss, metrics = self.estimator(f"{view}/{part}", scores, mask)
        if self.vector_penalty:
            loss = loss + self.vector_penalty * mean_rows(anchors.square().mean(dim=1), present)
        return loss, metrics

    def _prior(self, view: str, z: Tensor, context: Context):
        present = context.present.get(view)
        draws = context.draws.within(f"dim/{view}", z.device)
        uniform = draws.uniform("prior", z.shape[1], dtype=z.dtype)
        fool, tell, penalty = self.prior[view](blank(z, present), uniform, present)
        metrics = {"prior_encoder": fool, "prior_discriminator": tell, "prior_penalty": penalty}
        # The discriminator's own loss is not weighted: how hard it plays is no matter of how much the encoder cares.
        return self.weights["prior"] * fool + tell, {name: value.detach() for name, value in metrics.items()}


class Scores(nn.Module):
    """Scores [N, n, l] of the vectors of all processes with this process's maps; and its own embedded vectors."""

    def __init__(self, anchor: nn.Module, candidate: nn.Module, critic: nn.Module):
        super().__init__()
        self.anchor, self.candidate, self.critic = anchor, candidate, critic

    def forward(self, vector: Tensor, chart: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor]:
        vector, chart = blank(vector, present)[:, :, None, None], blank(chart, present)
        anchors = on_present(self.anchor, vector, present).flatten(1)  # [n, u]
        candidates = on_present(self.candidate, chart, present)  # [n, l, u]
        return self.critic(collectives.gather(anchors), candidates), anchors


def local(d: int, chart: tuple[int, int, int], critic: str, units: int) -> Scores:
    """The vector with every location. A vector that has as many units already is used as it is."""
    if critic == "concat":
        return Scores(AsItIs(), AsItIs(), ConcatMLP(d, chart[0], (512, 512)))
    return Scores(AsItIs() if d == units else DIMHead(d, units), DIMHead(chart[0], units), Dot())


def whole(d: int, chart: tuple[int, int, int], critic: str, units: int) -> Scores:
    """The vector with the map taken whole, l = 1."""
    if critic == "concat":
        return Scores(AsItIs(), FlatHead(chart), ConcatMLP(d, math.prod(chart), (512, 512)))
    return Scores(AsItIs() if d == units else DIMHead(d, units), FlatHead(chart, units), Dot())


def choose_layer(width: Widths, layer: int | None, view: str) -> int:
    """The number of the map to use. Raises `RecipeError` if there is none."""
    count = len(width.maps)
    if not count:
        raise RecipeError(f"dim: view {view!r} has no maps, only a vector; take an image encoder, or cmc or mib")
    if layer is None:
        return max((i for i, (_, h, w) in enumerate(width.maps) if h * w >= 49), default=0)
    if not -count <= layer < count:
        raise RecipeError(f"dim.layer: view {view!r} has maps 0 to {count - 1}, not {layer}")
    return layer % count


def pick(x: Tensor, count: int, draws: Draws) -> Tensor:
    """`count` random locations of each row's map, with replacement: [n, c, h, w] -> [n, c, count, 1]."""
    x = x.flatten(2)
    place = draws.integers("location", x.shape[2], count)
    return x.gather(2, place[:, None].expand(-1, x.shape[1], -1))[..., None]
