"""AMDIM: what one view saw of an image should recognise every place of it in the other view, at several scales.

in   Features of two or more views     vector [n, d] and at least one map [n, c, h, w]
out  loss = sum over scales (source -> target) of the mean over ordered pairs of views of infoNCE + regulariser
     score s = <source, target> / sqrt(embed);  infoNCE sees t tanh(s / t);  regulariser = 0.05 mean s^2
Bachman et al., 2019, arXiv:1906.00910, section 3

Anchors are the sources of all processes, candidates the target maps of this one, which never travel. Every
location of the same image in the other view is a positive with a softmax of its own, against every location of
every other image there. With a `mixture` the vector is several components, which share these locations out.
"""

import itertools
import math
from typing import Annotated, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from mvssl.distributed import collectives
from mvssl.encoders.encoder import Features, Widths
from mvssl.errors import RecipeError
from mvssl.objectives import estimators
from mvssl.objectives.context import Context, at_least_float32, same_sample
from mvssl.objectives.critics import Dot
from mvssl.objectives.heads import AMDIMHead, AsItIs, PerView, blank, named, on_present
from mvssl.objectives.mixture import Components, Mixture, own_shares, share_out

Target = Literal["last", "previous"] | int
Source = Literal["vector", "last", "previous"] | int
Scales = Annotated[tuple[tuple[Source, Target], ...], Field(min_length=1)]


class AMDIM(nn.Module):
    """Augmented multiscale Deep InfoMax, for two views or the mean over all pairs of more.

    `scales` lists source and target. `vector` is the vector, a number that map, `last` the deepest map with at
    least 3x3 locations and `previous` the one before it. A map as source gives one random location per image and
    step. A vector that is `embed` wide is used as it is. `soft_clip` is t (null: none). `share_heads`: one set of
    heads for all views; by default the draws of one view share, others do not.
    `mixture: {components: 8}` makes that many of each vector that is a source, as `mvssl.objectives.mixture` says.
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
        self.scales = [(source, target) for source, target in scales]
        self.soft_clip, self.regulariser = soft_clip, regulariser
        self.critic = Dot(1 / math.sqrt(embed))
        self.layer: dict[str, dict[str, int]] = {}  # of each view, the number of the map that a level names
        self.locations: dict[str, int] = {}  # of each level, in the first view
        self.heads = nn.ModuleDict()
        for level in dict.fromkeys(itertools.chain(*self.scales)):
            if level != "vector":
                self.layer[f"{level}"] = {view: choose_layer(width, level, view) for view, width in widths.items()}
                view, number = next(iter(self.layer[f"{level}"].items()))
                self.locations[f"{level}"] = math.prod(widths[view].maps[number][1:])
            self.heads[f"{level}"] = self._level_heads(f"{level}", widths, embed, share_heads)
        self.mixture = mixture
        if mixture is not None:
            if not any(source == "vector" for source, _ in self.scales):
                raise RecipeError("amdim.mixture makes components of the vector, which is no source in amdim.scales")
            count = mixture.components
            alike = dict.fromkeys(widths, embed)
            self.components = PerView(widths, alike, lambda _: Components(embed, count), share_heads)

    def _level_heads(self, level: str, widths: dict[str, Widths], embed: int, share: bool | None) -> PerView:
        wide = {v: w.vector if level == "vector" else w.maps[self.layer[level][v]][0] for v, w in widths.items()}

        def make(view: str) -> nn.Module:
            as_it_is = level == "vector" and wide[view] == embed
            return AsItIs() if as_it_is else AMDIMHead(wide[view], embed)

        return PerView(widths, wide, make, share)

    def forward(self, features: dict[str, Features], context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        embedded = {
            (level, view): self._embed(level, view, feature, context)
            for level in self.heads
            for view, feature in features.items()
        }
        anchors = {
            (f"{source}", view): collectives.gather(
                self._source(embedded[f"{source}", view], f"{source}", view, context)
            )
            for source in dict.fromkeys(source for source, _ in self.scales)
            for view in features
        }
        losses, metrics = [], {}
        pairs = list(itertools.combinations(features, 2))
        for (source, target), (a, b) in itertools.product(self.scales, pairs):
            there = self._contrast(anchors[f"{source}", a], embedded[f"{target}", b], a, b, context)
            back = self._contrast(anchors[f"{source}", b], embedded[f"{target}", a], b, a, context)
            both = {name: (there[name] + back[name]) / 2 for name in there}
            losses.append((both.pop("loss") + both["regulariser"]) / len(pairs))
            metrics |= {f"{name}/{a}-{b}/{source}-{target}": value.detach() for name, value in both.items()}
        return torch.stack(losses).sum(), metrics

    def candidates(self, batch: int) -> dict[str, int]:
        """What an anchor is compared with, of a batch over all processes: a positive, and all of the other images."""
        return {f"{source}-{target}": 1 + (batch - 1) * self.locations[f"{target}"] for source, target in self.scales}

    def represent(self, view: str, features: Features) -> Tensor:
        """The vector as sources embed it, [n, embed]; as it is where no scale starts from it."""
        if "vector" not in self.heads:
            return features.vector
        vector = at_least_float32(features.vector)[:, :, None, None]
        return self.heads["vector"][view](vector).flatten(1)  # pyright: ignore[reportIndexIssue]

    def segments(self, view: str, features: Features) -> dict[str, Tensor]:
        """Which component takes which place: q [n, k, h, w] of each map that the vector of a mixture is a source for.

        Vector and map are those of the same images, which are each other's negatives: give a batch. Raises
        `RecipeError` where there is no mixture.
        """
        if self.mixture is None:
            raise RecipeError("this amdim has no mixture whose components could share out an image")
        components = self.components[view](self.represent(view, features)).flatten(0, 1)
        mask = same_sample(len(features.vector), components.device, None, None)
        found = {}
        for target in dict.fromkeys(f"{target}" for source, target in self.scales if source == "vector"):
            chart = at_least_float32(features.maps[self.layer[target][named(view, self.layer[target])]])
            places = self.heads[target][view](chart)  # pyright: ignore[reportIndexIssue]
            s = own_shares(self._clip(self.critic(components, places)), mask)  # [n, h * w, k]
            q = (self.mixture.sharpness * s).softmax(dim=-1)
            found[target] = q.transpose(1, 2).unflatten(2, chart.shape[2:])
        return found

    def _embed(self, level: str, view: str, feature: Features, context: Context) -> Tensor:
        """[n, l, embed] of one level of one view."""
        present = context.present.get(view)
        x = feature.vector[:, :, None, None] if level == "vector" else feature.maps[self.layer[level][view]]
        return on_present(self.heads[level][view], blank(at_least_float32(x), present), present)  # pyright: ignore

    def _source(self, embedded: Tensor, level: str, view: str, context: Context) -> Tensor:
        """[n, embed]: one random location of each row; of a vector with a mixture its components, [n, k, embed]."""
        n, locations, _ = embedded.shape
        place = context.draws.within(f"amdim/{view}", embedded.device).integers(level, locations)
        picked = embedded[torch.arange(n, device=embedded.device), place.view(n)]
        return self.components[view](picked) if level == "vector" and self.mixture else picked

    def _contrast(self, anchors: Tensor, candidates: Tensor, a: str, b: str, context: Context) -> dict[str, Tensor]:
        """infoNCE of one source in view a with one target map in view b, and the penalty on its scores."""
        present = context.present.get(a), context.present.get(b)
        mask = same_sample(len(candidates), candidates.device, *present)
        scores = self.critic(anchors.flatten(0, -2), candidates)  # [N, n, l], with a mixture [N * k, n, l]
        context.note(a, b, scores, mask)
        counted = (mask != estimators.IGNORE).repeat_interleave(len(scores) // len(mask), dim=0).expand_as(scores)
        size = collectives.mean(scores.square().masked_fill(~counted, 0).sum(), counted.sum())
        if self.mixture and anchors.dim() == 3:
            loss, metrics = share_out(self._clip(scores), mask, self.mixture)
        else:
            loss, metrics = estimators.estimate("infonce", self._clip(scores), mask)
        return {"loss": loss, "regulariser": self.regulariser * size} | metrics

    def _clip(self, scores: Tensor) -> Tensor:
        return scores if self.soft_clip is None else self.soft_clip * torch.tanh(scores / self.soft_clip)


def choose_layer(width: Widths, level: str | int, view: str) -> int:
    """The number of the map that a level names. Raises `RecipeError` if the view's encoder has none."""
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
