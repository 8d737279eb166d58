"""Critics trained on one part of the data and chosen on another, so that what they learn by heart counts for nothing.

in   a critic, and two functions that give its bound: on training samples, and on a part of train that is held out
out  the critic as it was when its bound on the held-out part was highest, which may be before its first step

The bounds are those of `mvssl.objectives.estimators`, written for one process: probes run where others may not follow.
"""

import copy
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EVERY = 25  # steps between two looks at the held-out part
PATIENCE = 8  # looks without progress after which training ends
CLIP = 1.0  # largest gradient norm: the exponential in NWJ and DV has steep walls


def train_critic(
    critic: nn.Module, drawn: Callable[[int], Tensor], held: Callable[[], Tensor], *, steps: int, rate: float
) -> int:
    """Maximise `drawn(step)` by Adam, step 0 to `steps` - 1; returns after how many steps `held()` was highest."""
    adam = torch.optim.Adam(critic.parameters(), lr=rate)
    best, at, kept = _now(held), 0, copy.deepcopy(critic.state_dict())
    for step in range(1, steps + 1):
        with torch.enable_grad():
            loss = -drawn(step - 1)
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(critic.parameters(), CLIP)
        adam.step()
        if step % EVERY == 0:
            now = _now(held)
            if now > best:
                best, at, kept = now, step, copy.deepcopy(critic.state_dict())
            elif step - at >= PATIENCE * EVERY:
                break
    critic.load_state_dict(kept)
    return at


def _now(held: Callable[[], Tensor]) -> float:
    with torch.no_grad():
        value = held().item()
    return -math.inf if math.isnan(value) else value


def infonce(together: Tensor, apart: Tensor) -> Tensor:
    """What each anchor adds to InfoNCE: scores with its own [n] and with n - 1 others [n, n - 1] -> [n]."""
    whole = torch.cat([together[:, None], apart], 1)
    return together - whole.logsumexp(1) + math.log(whole.shape[1])


def nwj(together: Tensor, apart: Tensor) -> Tensor:
    """What each anchor adds to NWJ: scores [n] and [n, m] -> [n]."""
    return together - (apart - 1).exp().mean(1)


def dv(together: Tensor, apart: Tensor) -> Tensor:
    """What each anchor adds to Donsker and Varadhan's bound, to first order: scores [n] and [n, m] -> [n].

    The mean is the bound itself. The logarithm is of one mean over everything, so a row's part is its influence.
    """
    level = apart.flatten().logsumexp(0) - math.log(apart.numel())
    return together - level - ((apart - level).exp().mean(1) - 1)


class MovingDV:
    """`dv` with MINE's gradient: the denominator is a moving average over the batches that this object has seen.

    Belghazi et al., 2018, arXiv:1801.04062, section 3.2; as `estimators.mine`, for one process.
    Called as `dv` is, and like there the mean is the bound of the batch.
    """

    def __init__(self, rate: float = 0.01):
        self.rate, self.log_average = rate, torch.tensor(-math.inf)

    def __call__(self, together: Tensor, apart: Tensor) -> Tensor:
        denominator = apart.flatten().logsumexp(0) - math.log(apart.numel())
        now, before = denominator.detach(), self.log_average.to(denominator)
        later = torch.logaddexp(before + math.log1p(-self.rate), now + math.log(self.rate))
        self.log_average = torch.where(before.isneginf(), now, later)
        weight = (now - self.log_average).exp()
        return together - (now + weight * (denominator - now))


def jsd(together: Tensor, apart: Tensor) -> Tensor:
    """What each anchor adds to the Jensen-Shannon bound, whose best critic is the log ratio: [n] and [n, m] -> [n]."""
    return 2 * math.log(2) - F.softplus(-together) - F.softplus(apart).mean(1)


def off_diagonal(scores: Tensor) -> Tensor:
    """[n, n] -> [n, n - 1], each row without its own."""
    n = len(scores)
    return scores.flatten()[1:].view(n - 1, n + 1)[:, :-1].reshape(n, n - 1)
