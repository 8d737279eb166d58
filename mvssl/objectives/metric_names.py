"""Names of metrics: from parts to the key in metrics.jsonl, and back.

bound/a-b/vector-last           of the pair a-b and the scale vector-last
val/cmc/bound/a-b               held out, of the term cmc of several objectives
val/plane/xz/a                  held out, of the view a
"""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

HELD_OUT = "val"


class MetricName(NamedTuple):
    """What a metric measures.

    `of` is what it is measured on: a view or a pair of views, then a part or layer; empty for all views together.
    `term` is the label of its objective where a recipe has several, else empty.
    """

    quantity: str
    of: tuple[str, ...] = ()
    term: str = ""
    held_out: bool = False

    @classmethod
    def parse(cls, key: str, terms: Collection[str] = ()) -> "MetricName":
        """Read a key; `terms` are the labels of a run's objectives, see `find_terms`.

        >>> MetricName.parse("val/cmc/bound/a-b", {"cmc", "dim"})
        MetricName(quantity='bound', of=('a-b',), term='cmc', held_out=True)
        """
        first, *rest = key.split("/")
        held_out = first == HELD_OUT and bool(rest)
        if held_out:
            first, *rest = rest
        if first in terms and rest:
            return cls(rest[0], tuple(rest[1:]), first, held_out)
        return cls(first, tuple(rest), "", held_out)

    def __str__(self) -> str:
        return "/".join([*[HELD_OUT] * self.held_out, *[self.term] * bool(self.term), self.quantity, *self.of])

    @property
    def subject(self) -> str:
        """Term and `of` as one text, such as `cmc/a-b`; metrics of one subject belong together."""
        return "/".join([*[self.term] * bool(self.term), *self.of])


def name_metrics(values: Mapping[str, Tensor], *of: str) -> dict[str, Tensor]:
    """Return values by quantity as values by key, detached; all are measured on `of`."""
    return {str(MetricName(quantity, of)): value.detach() for quantity, value in values.items()}


def find_terms(keys: Iterable[str]) -> set[str]:
    """Return the labels of the objectives whose metrics have these keys; empty where there is one objective.

    Each of several objectives logs its loss as TERM/loss.
    """
    names = map(MetricName.parse, keys)
    return {name.quantity for name in names if name.of == ("loss",)}
