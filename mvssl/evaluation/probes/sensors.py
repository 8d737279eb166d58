"""A sensor that fails: what a classifier of all views together still knows when one of them is missing at test.

in   features of every view of train and test, and their labels
out  the score with all views, without each of them, and of each alone

One linear classifier is trained on all views side by side, as the linear probe is on `all`. A missing view's features
are set to their mean over train, which is 0 once standardised: what anyone can do without having expected the loss.
"""

from typing import Any

import torch

from mvssl.evaluation.features.input_types import ByView
from mvssl.evaluation.features.labelled import Labelled, Standard, classes
from mvssl.evaluation.probes.fitting import refuse_one_class
from mvssl.evaluation.probes.linear import fit, linear, select
from mvssl.evaluation.results.metrics import NotPossible, Result, judge, metric_of

SCHEDULE: dict[str, Any] = {"epochs": 20, "batch_size": 512, "least_steps": 500}  # the linear probe's


def sensors(train: ByView, test: ByView, *, share: float = 0.2, seed: int = 0, **schedule: Any) -> list[Result]:
    """`all`, `without VIEW` and `only VIEW` of every view."""
    if len(train.features) < 2:
        raise NotPossible("without its only view nothing is left")
    refuse_one_class(train.labels)
    schedule = SCHEDULE | schedule
    standards = {view: Standard.of(x) for view, x in train.features.items()}
    tested = {view: standards[view](x) for view, x in test.features.items()}
    widths = [x.shape[1] for x in train.features.values()]
    first = next(iter(train.features.values()))
    whole = Labelled(first.new_empty(len(first), sum(widths)), train.labels)
    for view, place in zip(train.features, whole.features.split(widths, 1), strict=True):  # one copy of train, not two
        place.copy_(standards[view](train.features[view]))
    chosen = select(whole, share=share, seed=seed, **schedule)
    pair = chosen["learning_rate"], chosen["weight_decay"]
    model = fit(whole, [pair], width=classes(train.labels), seed=seed, **schedule)
    protocol = {
        "classifier": "linear on all views side by side, as the linear probe's",
        **schedule,
        "scaling": "each view standardised by train",
        "missing": "features of the missing view are their mean over train (0 once standardised)",
        "chosen": f"by {metric_of(train.labels).name} of all views on {share:.0%} of train, then refitted on all of it",
    }
    results = []
    for missing in (None, *tested):
        kept = [torch.zeros_like(x) if view == missing else x for view, x in tested.items()]
        scores = model(torch.cat(kept, 1))[:, 0]
        what = "all" if missing is None else f"without {missing}"
        results.append(judge(scores, test.labels, protocol, seed, what=what, chosen=chosen))
    for view in tested:
        pair = (Labelled(split.features[view], split.labels) for split in (train, test))
        results.append(linear(*pair, share=share, seed=seed, **schedule)._replace(what=f"only {view}"))
    return results
