"""The methods that timm expects of a model, written once for mvssl's own networks.

in   a network with `run`, from a view to its maps, and `pool`, from the last features to the vector
out  forward_features, forward_intermediates, forward_head, reset_classifier, ... with timm's signatures and meanings
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


def describe_network(size: tuple[int, int, int], **more: Any) -> dict[str, Any]:
    """Return the description that timm keeps of a network for inputs of `size` (c, h, w) with the classifier `head`."""
    return {"input_size": size, "num_classes": 0, "crop_pct": 1.0, "classifier": "head", **more}


class Backbone(nn.Module):
    """Base class of mvssl's own networks.

    A subclass defines `run` and `pool`, sets `num_features`, `in_chans` and `feature_info`, and calls
    `reset_classifier` last.
    """

    num_features: int
    in_chans: int

    def run(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the last features, as `pool` takes them, and the maps [n, c, h, w], shallow to deep."""
        raise NotImplementedError

    def pool(self, x: Tensor) -> Tensor:
        """Return the vector [n, num_features] of the last features."""
        raise NotImplementedError

    @property
    def head_hidden_size(self) -> int:
        """Width of the classifier's input."""
        return self.num_features

    def get_classifier(self) -> nn.Module:
        """Return the classifier; the identity without classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Set a new classifier for `num_classes` classes, none for 0. `global_pool` has no effect on these networks."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        return self.run(x)[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.pool(x)
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
        """Return the last features and the maps that `indices` chooses: all, the last n, or those listed."""
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt is NCHW, not {output_fmt!r}")
        final, maps = self.run(x)
        chosen = [maps[i] for i in _resolve_indices(len(maps), indices)]
        return chosen if intermediates_only else (final, chosen)


def _resolve_indices(count: int, indices: int | Sequence[int] | None) -> list[int]:
    if indices is None:
        return list(range(count))
    if isinstance(indices, int):
        indices = range(-indices, 0)
    wrong = [i for i in indices if not -count <= i < count]
    if wrong:
        raise ValueError(f"no map {wrong}: there are {count}, 0 to {count - 1} or -{count} to -1")
    return sorted(i % count for i in indices)
