"""Options out of range are refused by name before anything is built; those at the edge are taken."""

import math

import pytest
from small_features import WIDTHS

from mvssl.errors import RecipeError
from mvssl.objectives import OBJECTIVES
from mvssl.recipe.options import construct

WIDE = {
    "cmc": ["embed"],
    "mib": ["latent", "units"],
    "infomax": ["latent"],
    "predict": ["size", "units"],
    "dim": ["units", "subsample"],
    "amdim": ["embed"],
}
POSITIVE = {"cmc": ["temperature"], "mib": ["beta_start"], "amdim": ["soft_clip"]}
NOT_NEGATIVE = {
    "mib": ["beta"],
    "dim": ["local_weight", "global_weight", "prior_weight", "vector_penalty"],
    "amdim": ["regulariser"],
}
WRONG = [
    *((name, option, value) for name, some in WIDE.items() for option in some for value in (-1, 0, 1.5)),
    *((name, option, value) for name, some in POSITIVE.items() for option in some for value in (-1, 0, math.inf)),
    *((name, option, value) for name, some in NOT_NEGATIVE.items() for option in some for value in (-1, math.nan)),
    *((name, "smile_clip", value) for name in ("dim", "mib", "infomax") for value in (-1, 0)),
    *((name, "mine_rate", value) for name in ("dim", "mib", "infomax") for value in (0, 1, 1.5)),
    *((name, "negatives", value) for name in ("mib", "infomax") for value in (0, -1, 1.5, "some")),
    ("mib", "beta_begin", -1),
    ("amdim", "scales", []),
]


def built(name, **options):
    return construct(OBJECTIVES[name], options, f"objective.{name}", {"a": WIDTHS, "b": WIDTHS})


@pytest.mark.parametrize(("name", "option", "value"), WRONG)
def test_what_means_nothing_is_refused_with_its_place(name, option, value):
    with pytest.raises(RecipeError, match=rf"objective\.{name}\.{option}: expected "):
        built(name, **{option: value})


def test_what_is_barely_meaningful_is_built():
    built("cmc", embed=1, temperature=1e-3)
    built("mib", latent=1, units=1, beta=0, beta_begin=0, beta_end=0)
    built("dim", units=1, subsample=49, prior_weight=0)
    built("amdim", embed=1, scales=[["vector", 0]], soft_clip=None, regulariser=0)
