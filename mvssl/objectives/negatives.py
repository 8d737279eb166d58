"""Which pairs of rows a perceptron critic sees: each candidate with its own anchor and with a few others, or all.

in   anchors [n, a] and candidates [n, c] of this process, which of their rows are present
out  scores [N, n, 1] of the anchors of all processes with the candidates of this one, and their mask
"""

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from mvssl.distributed import collectives
from mvssl.objectives import estimators
from mvssl.objectives.context import only_present, same_sample
from mvssl.objectives.critics import ConcatMLP, Separable

Negatives = Literal["roll", "all"] | PositiveInt
Critic = Literal["concat", "separable"]


def make_critic(kind: Critic, anchor: int, candidate: int, units: int) -> ConcatMLP | Separable:
    """A critic with hidden layers of `units`: one perceptron on both, or the product of one for each."""
    return ConcatMLP(anchor, candidate, (units, units)) if kind == "concat" else Separable(anchor, candidate, units)


def count(negatives: Negatives, batch: int) -> int:
    """How many other rows of a batch over all processes each candidate is scored with."""
    return batch - 1 if negatives == "all" else min(batch - 1, 1 if negatives == "roll" else negatives)


def pair_up(
    critic: ConcatMLP | Separable,
    anchors: Tensor,
    candidates: Tensor,
    negatives: Negatives,
    here: Tensor | None,
    there: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """(scores, mask), [N, n, 1]: of each candidate with its own anchor, and with those of the rows before it.

    The rows stand in a ring, that of the whole batch over all processes. `roll` takes one row before, the authors'
    choice; a number takes so many; `all` every other row.
    """
    n, device = len(candidates), candidates.device
    everyone = collectives.gather(anchors)
    if negatives == "all":
        return critic(everyone, candidates[:, None]), same_sample(n, device, here, there)
    back = torch.arange(count(negatives, len(everyone)) + 1, device=device)[:, None]
    row = torch.arange(n, device=device).expand(len(back), n)
    anchor = (row + collectives.rank() * n - back) % len(everyone)  # [1 + negatives, n]
    found = critic.pairs(everyone[anchor].flatten(0, 1), candidates.repeat(len(back), 1)).view(len(back), n)

    shape = len(everyone), n, 1
    scores = everyone.new_zeros(shape).index_put((anchor, row, torch.zeros_like(row)), found)
    mask = torch.zeros(shape, dtype=torch.int8, device=device)
    mask[anchor[1:], row[1:]] = estimators.NEGATIVE
    mask[anchor[0], row[0]] = estimators.POSITIVE
    return scores, only_present(mask, here, there)
