"""MLP probe: a classifier with one hidden layer on frozen features, as Deep InfoMax and AMDIM measured theirs.

in   features and labels of train and test
out  accuracy, or mean average precision, on test

The heads, optimizers and the places of their milestones are the papers' public code's, see `classifiers`. The number
of epochs is ours, and so is the learning rate where it is chosen: it then is the one that does best on a part of train.
"""

from typing import Literal

from mvssl.evaluate.classifiers import MLPS, classify
from mvssl.evaluate.features import Labelled
from mvssl.evaluate.metrics import Result

RATES = (1e-4, 1e-3)  # to choose from


def mlp(
    train: Labelled,
    test: Labelled,
    *,
    head: Literal["dim", "amdim"] = "dim",
    rates: tuple[float, ...] | None = RATES,
    epochs: int = 10,
    least_steps: int = 500,
    standardised: bool = True,
    share: float = 0.2,
    seed: int = 0,
) -> Result:
    """Choose the learning rate on a part of train, refit on all of it, score on test once.

    `rates=None` is the paper's own rate, and then nothing is chosen. At least `least_steps` steps. `standardised` by
    train, or as they are, which is how the papers take features.
    """
    return classify(
        train, test, MLPS[head], whose=head, rates=rates, epochs=epochs, least_steps=least_steps,
        standardised=standardised, share=share, seed=seed,
    )  # fmt: skip
