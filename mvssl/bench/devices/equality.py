"""Are the fast losses as exact as plain ones on this device, in each precision? Float64 is the truth.

in   a `LossCase`: our loss, the plain form, and embeddings
out  `Equality`: how far the gradients of each are from those of the plain form in float64
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mvssl.bench.losses import LossCase, build_amdim_case, build_cmc_case, build_dim_case
from mvssl.distributed.devices import arithmetic

PRECISIONS = ("fp32", "tf32", "bf16")
SLACK, FLOOR = 2.0, 1e-6  # ours may be off by so many times the plain form's error, and by rounding of float32


class Equality(NamedTuple):
    """Relative errors |g - g64| / |g64| of the gradients, of ours and of the plain form."""

    what: str
    precision: str
    ours: float
    plain: float

    @property
    def holds(self) -> bool:
        """Whether ours is as exact as the plain form."""
        return self.ours <= SLACK * self.plain + FLOOR


def compare_losses(device: torch.device, n: int = 1024, side: int = 7) -> list[Equality]:
    """Compare the losses of `cmc`, AMDIM and DIM in every precision; `n` samples for `cmc`, 64 for the others."""
    cases = {
        f"cmc, {n:,} samples": build_cmc_case(n, device),
        f"amdim, {side**2} places": build_amdim_case(64, side, 256, device),
        f"dim jsd, {side**2} places": build_dim_case("jsd", 64, side, 256, device),
        f"dim infonce, {side**2} places": build_dim_case("infonce", 64, side, 256, device),
        f"dim dv, {side**2} places": build_dim_case("dv", 64, side, 256, device),
    }
    return [compare_gradients(what, case, precision) for what, case in cases.items() for precision in PRECISIONS]


def compare_gradients(what: str, case: LossCase, precision: str) -> Equality:
    """Compare ours and the plain form, the second loss of the case, with the plain form in float64.

    For bf16 the embeddings are rounded to it first, as an encoder under autocast gives them.
    """
    ours, plain = list(case.losses)[:2]
    embeddings = tuple(x.bfloat16().float() if precision == "bf16" else x for x in case.embeddings)
    exact = _gradients(case._replace(embeddings=tuple(x.double() for x in embeddings)), plain)
    with arithmetic(precision):
        of_ours, of_plain = (_gradients(case._replace(embeddings=embeddings), name) for name in (ours, plain))
    return Equality(what, precision, _measure_error(of_ours, exact), _measure_error(of_plain, exact))


def _gradients(case: LossCase, name: str) -> Tensor:
    """All gradients of one loss as one vector in float64."""
    gradients: Any = case.build_ways()[name]()
    return torch.cat([gradient.double().flatten() for gradient in gradients])


def _measure_error(found: Tensor, exact: Tensor) -> float:
    return ((found - exact).norm() / exact.norm()).item()
