"""DIM: match the global vector of an image with its local features among those of all images.

in   Features of each view     a map [n, c, h, w] and the vector [n, d]
out  loss = local_weight * local + global_weight * global + prior, the mean over views
     local: the vector against every location of the map (section 3.2); global: against the full map (3.1)
     prior: the code looks uniform on the unit cube to a discriminator D (3.3)
         encoder's term        prior_weight * E sp(-D(sigmoid z)), with D's parameters detached
         discriminator's term  E_uniform sp(-D) + E_code sp(D) + (GP_uniform + GP_code) / 2,  GP = E |grad D|^2
Hjelm et al., 2019, arXiv:1808.06670; the penalty is that of Mescheder et al., 2018, arXiv:1801.04406

Views are not compared with each other. Anchors are the vectors of all processes, candidates the maps of this one; maps
never travel. Every location of the anchor's own image is a positive, every location of another image a negative.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.func import functional_call

from mvssl.distributed import collectives
from mvssl.encoders import Features, Widths, at_least_float32
from mvssl.errors import RecipeError
from mvssl.objectives.base import Context, Objective
from mvssl.objectives.estimators import AverageRate, Estimator, EstimatorName
from mvssl.objectives.metric_names import name_metrics
from mvssl.objectives.pairs import Pairs
from mvssl.objectives.scoring.critics import ConcatMLP, Dot
from mvssl.objectives.scoring.heads import DIMHead, FlatHead, NoHead, PerView, apply_to_present, perceptron
from mvssl.objectives.scoring.masks import blank_absent, gather_present, mean_rows
from mvssl.random import Draws


class DIM(Objective):
    """Deep InfoMax, for one view or the mean over several.

    `layer` is the number of the map. The default is the deepest map with at least 7x7 locations. If there is none, it
    is the first map. `critic` dot is the product of two networks of `units`, concat is one perceptron on both.
    `subsample` is a number of random locations: only these locations of each image are scored. `share_heads` makes one
    set of heads for all views. By default the draws of one view share a set of heads. Different views do not.

    Options of the public code: `mask_value: -10` adds the anchor's own locations as candidates for infonce. Their score
    is set to -10. `vector_penalty` times the mean squared element of the embedded vector is added to the loss.
    """

    def __init__(
        self,
        widths: dict[str, Widths],
        *,
        local_weight: NonNegativeFloat = 1.0,
        global_weight: NonNegativeFloat = 0.0,
        prior_weight: NonNegativeFloat = 0.0,
        layer: int | None = None,
        estimator: EstimatorName = "jsd",
        smile_clip: PositiveFloat = 5.0,
        mine_rate: AverageRate = 0.01,
        critic: Literal["dot", "concat"] = "dot",
        units: PositiveInt = 2048,
        subsample: PositiveInt | None = None,
        share_heads: bool | None = None,
        mask_value: float | None = None,
        vector_penalty: NonNegativeFloat = 0.0,
    ):
        super().__init__()
        if mask_value is not None and estimator != "infonce":
            raise RecipeError(f"dim.mask_value is an option of estimator infonce, not of {estimator}")
        self.weights = {"local": local_weight, "global": global_weight, "prior": prior_weight}
        if not any(self.weights.values()):
            raise RecipeError("dim: local_weight, global_weight and prior_weight are all 0; set at least one of them")
        self.subsample, self.vector_penalty = subsample, vector_penalty

        self.layer: dict[str, int] = {}
        if local_weight or global_weight:
            self.layer = {view: choose_map(width, layer, view) for view, width in widths.items()}
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
                widths, channels, lambda view: build_local_scores(*sizes[view], critic, units), share_heads
            )
        if global_weight:
            self.scores["global"] = PerView(
                widths, sizes, lambda view: build_global_scores(*sizes[view], critic, units), share_heads
            )
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
                metrics |= name_metrics(measured, view, part)
            if self.weights["prior"]:
                loss, measured = self._prior(view, at_least_float32(feature.vector), context)
                terms.append(loss)
                metrics |= name_metrics(measured, view)
        return torch.stack(terms).sum() / len(features), metrics

    def represent(self, view: str, features: Features) -> Tensor:
        """Return the vector itself, [n, d]."""
        return features.vector

    def candidates(self, batch: int) -> dict[str, int]:
        return {
            f"{part} {view}": 1 + (batch - 1) * (count if part == "local" else 1)
            for part in self.scores
            for view, count in self.locations.items()
        }

    def _information(
        self, part: str, view: str, feature: Features, context: Context
    ) -> tuple[Tensor, dict[str, Tensor]]:
        present = context.present.get(view)
        vector, fmap = map(at_least_float32, (feature.vector, feature.maps[self.layer[view]]))
        if part == "local" and self.subsample:
            fmap = sample_locations(fmap, self.subsample, context.draws.within(f"dim/{view}", fmap.device))
        pairs, anchors = self.scores[part][view](vector, fmap, present)  # pyright: ignore
        loss, metrics = self.estimator(f"{view}/{part}", pairs)
        if self.vector_penalty:
            loss = loss + self.vector_penalty * mean_rows(anchors.square().mean(dim=1), present)
        return loss, metrics

    def _prior(self, view: str, z: Tensor, context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        present = context.present.get(view)
        draws = context.draws.within(f"dim/{view}", z.device)
        uniform = draws.uniform("prior", z.shape[1], dtype=z.dtype)
        encoder, discriminator, penalty = self.prior[view](blank_absent(z, present), uniform, present)
        metrics = {"prior_encoder": encoder, "prior_discriminator": discriminator, "prior_penalty": penalty}
        # `prior_weight` weighs the encoder's term alone: the discriminator trains the same at any weight.
        return self.weights["prior"] * encoder + discriminator, metrics


class Scores(nn.Module):
    """The pairs of the vectors of all processes with this process's maps; and its own embedded vectors."""

    def __init__(self, anchor: nn.Module, candidate: nn.Module, critic: ConcatMLP | Dot):
        super().__init__()
        self.anchor, self.candidate, self.critic = anchor, candidate, critic

    def forward(self, vector: Tensor, fmap: Tensor, present: Tensor | None) -> tuple[Pairs, Tensor]:
        vector, fmap = blank_absent(vector, present)[:, :, None, None], blank_absent(fmap, present)
        anchors = apply_to_present(self.anchor, vector, present).flatten(1)  # [n, u]
        candidates = apply_to_present(self.candidate, fmap, present)  # [n, l, u]
        rows = gather_present(present, present, vector.device)
        return self.critic.pair(collectives.gather(anchors), candidates, rows), anchors


def build_local_scores(d: int, fmap: tuple[int, int, int], critic: str, units: int) -> Scores:
    """Return scores of the vector with every location. A vector that is `units` wide is used without a head."""
    if critic == "concat":
        return Scores(NoHead(), NoHead(), ConcatMLP(d, fmap[0], (512, 512)))
    return Scores(NoHead() if d == units else DIMHead(d, units), DIMHead(fmap[0], units), Dot())


def build_global_scores(d: int, fmap: tuple[int, int, int], critic: str, units: int) -> Scores:
    """Return scores of the vector with the full map as one location, l = 1."""
    if critic == "concat":
        return Scores(NoHead(), FlatHead(fmap), ConcatMLP(d, math.prod(fmap), (512, 512)))
    return Scores(NoHead() if d == units else DIMHead(d, units), FlatHead(fmap, units), Dot())


class Prior(nn.Module):
    """The discriminator, d -> 1000 -> 200 -> 1 with ReLU, and both terms of its game, for one backward pass."""

    def __init__(self, width: int):
        super().__init__()
        self.discriminator = perceptron(width, 1000, 200, 1)

    def forward(self, z: Tensor, uniform: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the encoder's term, the discriminator's term, and the penalty in it; 0-d, over all processes.

        `z` and `uniform` are [n, d]. The encoder's term has the discriminator's parameters detached, the
        discriminator's term the code.
        """
        code = torch.sigmoid(z)
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        encoder = mean_rows(F.softplus(-functional_call(self.discriminator, frozen, (code,))[:, 0]), present)

        real, penalty_real = self._score(uniform, present)
        fake, penalty_fake = self._score(code.detach(), present)
        penalty = (penalty_real + penalty_fake) / 2
        discriminator = mean_rows(F.softplus(-real), present) + mean_rows(F.softplus(fake), present) + penalty
        return encoder, discriminator, penalty

    def _score(self, x: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor]:
        """D(x) [n] and the mean of |grad D(x)|^2."""
        with torch.enable_grad():  # the penalty is a derivative also where the loss is only measured
            x = x.detach().requires_grad_()
            score = self.discriminator(x)[:, 0]
            (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        return score, mean_rows(slope.square().sum(dim=1), present)


def choose_map(width: Widths, layer: int | None, view: str) -> int:
    """Return the number of the map to use. Raises `RecipeError` if there is none."""
    count = len(width.maps)
    if not count:
        raise RecipeError(f"dim: view {view!r} has no maps, only a vector; take an image encoder, or cmc or mib")
    if layer is None:
        return max((i for i, (_, h, w) in enumerate(width.maps) if h * w >= 49), default=0)
    if not -count <= layer < count:
        raise RecipeError(f"dim.layer: view {view!r} has maps 0 to {count - 1}, not {layer}")
    return layer % count


def sample_locations(x: Tensor, count: int, draws: Draws) -> Tensor:
    """Return `count` random locations of each row's map, with replacement: [n, c, h, w] -> [n, c, count, 1]."""
    x = x.flatten(2)
    place = draws.integers("location", x.shape[2], count)
    return x.gather(2, place[:, None].expand(-1, x.shape[1], -1))[..., None]
