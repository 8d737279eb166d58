"""What timm expects of a model, written once for mvssl's own networks.

in   a network that says how to get from an image to its maps (`run`) and from the last map to its vector (`summary`)
out  forward_features, forward_intermediates, forward_head, reset_classifier, ... with timm's signatures and meanings
"""

from collections.abc import Sequence

from torch import Tensor, nn


class Backbone(nn.Module):
    """Base of mvssl's own networks; a subclass sets `num_features`, `in_chans` and calls `reset_classifier` last."""

    num_features: int
    in_chans: int

    def run(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last features, as `summary` takes them, and the maps [n, c, h, w], shallow to deep."""
        raise NotImplementedError

    def summary(self, x: Tensor) -> Tensor:
        """The vector [n, num_features] of the last features."""
        raise NotImplementedError

    @property
    def head_hidden_size(self) -> int:
        """Width of what the classifier reads."""
        return self.num_features

    def get_classifier(self) -> nn.Module:
        """The classifier; the identity where there are no classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh classifier for `num_classes` classes; 0 takes it away. These networks have no pooling to choose."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        return self.run(x)[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.summary(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Last features and the maps that `indices` picks: all, the last n, or those listed."""
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt is NCHW, not {output_fmt!r}")
        final, maps = self.run(x)
        kept = [maps[i] for i in _picked(len(maps), indices)]
        return kept if intermediates_only else (final, kept)


def _picked(count: int, indices: int | Sequence[int] | None) -> list[int]:
    if indices is None:
        return list(range(count))
    if isinstance(indices, int):
        indices = range(-indices, 0)
    wrong = [i for i in indices if not -count <= i < count]
    if wrong:
        raise ValueError(f"no map {wrong}: there are {count}, 0 to {count - 1} or -{count} to -1")
    return sorted(i % count for i in indices)
