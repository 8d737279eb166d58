"""Colour jitter with given parameters."""

from torch import Tensor

from mvssl.views.images.color import HUE, Jitter, compose_jitter


def compose(factors: Tensor, turns: Tensor, order: Tensor, gray: Tensor, hue: str = "hsv") -> Jitter:
    """factors [n, 3], turns [n], order [n, 4]: the operations from first to last, gray [n]."""
    rank = order.argsort(1)
    early = (rank[:, :HUE] < rank[:, [HUE]]).T.numpy()
    return compose_jitter(factors.T.numpy(), turns.numpy(), early, gray.numpy(), hue)
