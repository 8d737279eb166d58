"""Metrics of clean features: kNN accuracy, effective rank, spread, and MIB's information plane.

in   `CleanFeatures` of held-out samples and, if the data have labels, of labelled training samples
out  numbers by view
"""

import math

import torch
from torch import Tensor

from mvssl.encoders import Features
from mvssl.evaluation.features.labelled import Labelled
from mvssl.evaluation.probes.knn import knn_scores
from mvssl.evaluation.probes.spectrum import effective_rank, spread
from mvssl.evaluation.results.metrics import classifier_score
from mvssl.model import MultiView
from mvssl.monitoring import information_plane
from mvssl.monitoring.diagnosis import FeatureStatistics
from mvssl.monitoring.held_out import CleanFeatures
from mvssl.objectives import Objective
from mvssl.random import Draws

IDLE = 1e-3  # of the mean standard deviation: a dimension that varies less does not vary


def compute_statistics(clean: CleanFeatures) -> dict[str, FeatureStatistics]:
    """Return the statistics of each view's features; NaN if some are not finite."""
    statistics = {}
    for view, vectors in clean.vectors.items():
        x = vectors[clean.present[view]] if view in clean.present else vectors
        n, d = x.shape
        if not x.isfinite().all():
            statistics[view] = FeatureStatistics(math.nan, math.nan, math.nan, d, n)
        elif n > 1:
            deviation = x.double().std(0)
            idle = (deviation <= IDLE * deviation.mean()).double().mean()
            statistics[view] = FeatureStatistics(effective_rank(x).item(), spread(x).mean().item(), idle.item(), d, n)
    return statistics


def knn_accuracy(clean: CleanFeatures, bank: CleanFeatures | None) -> dict[str, float]:
    """Return by view the accuracy, or mean average precision of multi-hot labels, of 20 nearest neighbours in `bank`.

    Nothing without labels. The vote of the neighbours is weighted: Wu et al., CVPR 2018, as in `mvssl evaluate`, where
    all samples are used.
    """
    accuracy = {}
    if clean.labels is None or bank is None or bank.labels is None:
        return accuracy
    for view in clean.vectors:
        fitted, tested = _labelled(bank, view), _labelled(clean, view)
        if not len(fitted.labels) or not len(tested.labels):
            continue
        if fitted.labels.ndim == 2:
            both = (fitted.labels.sum(0) > 0) & (tested.labels.sum(0) > 0)
            if not both.any():
                continue
            fit_labels, labels = fitted.labels[:, both], tested.labels[:, both]
        else:
            together = torch.unique(torch.cat([fitted.labels, tested.labels]), return_inverse=True)[1]
            fit_labels, labels = together.split([len(fitted.labels), len(tested.labels)])
        accuracy[view] = classifier_score(knn_scores(Labelled(fitted.features, fit_labels), tested.features), labels)
    return accuracy


def _labelled(clean: CleanFeatures, view: str) -> Labelled:
    assert clean.labels is not None
    keep = clean.labels >= 0 if clean.labels.ndim == 1 else (clean.labels >= 0).all(1)
    if view in clean.present:
        keep = keep & clean.present[view]
    return Labelled(clean.vectors[view][keep], clean.labels[keep])


def information_planes(
    model: MultiView, clean: CleanFeatures, bank: CleanFeatures | None, seed: int, done: int
) -> dict[str, float]:
    """Return the information plane of every objective with a posterior, in nats: mean over views, and of each view.

    `xz` and `xz_upper` bound I(x; z) over the held-out samples, `zy` bounds I(z; y) from below; `beta` is that of the
    last of `done` steps.
    """
    values = {}
    for label, _, objective in model.terms:
        beta = objective.beta(max(done - 1, 0)) if objective.has_posterior else None
        if beta is None:
            continue
        before = f"{label}/" if len(model.terms) > 1 else ""
        planes = {view: _plane(objective, view, clean, bank, seed) for view in clean.vectors}
        for name in ("xz", "xz_upper", "zy"):
            by_view = {view: plane[name] for view, plane in planes.items() if name in plane}
            if by_view:
                values[f"{before}plane/{name}"] = sum(by_view.values()) / len(by_view)
            if len(planes) > 1:
                values |= {f"{before}plane/{name}/{view}": value for view, value in by_view.items()}
        values[f"{before}beta"] = beta
    return values


def _plane(
    objective: Objective, view: str, clean: CleanFeatures, bank: CleanFeatures | None, seed: int
) -> dict[str, float]:
    z, mean, scale = _drawn(objective, view, clean, seed)
    present = clean.present.get(view, torch.ones(len(z), dtype=torch.bool, device=z.device))
    if present.sum() < 2 or not z[present].isfinite().all():
        return {}
    lower, upper = information_plane.input_information_bounds(mean[present], scale[present], z[present])
    found = {"xz": lower, "xz_upper": upper}
    if bank is not None and bank.labels is not None and clean.labels is not None and clean.labels.ndim == 1:
        codes = _drawn(objective, view, bank, seed)[0]
        fitted, tested = (_labelled(part._replace(vectors={view: x}), view) for part, x in ((bank, codes), (clean, z)))
        if len(fitted.labels) and len(tested.labels) and fitted.features.isfinite().all():
            found["zy"] = information_plane.label_information_bound(
                tested.features, tested.labels, fitted.features, fitted.labels
            )
    return found


def _drawn(objective: Objective, view: str, clean: CleanFeatures, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A draw, the mean and the scale of p(z | x) for every sample, [n, latent] each."""
    with torch.no_grad():
        posterior = objective.posterior(view, Features((), clean.vectors[view]))
    draws = Draws(seed, clean.index.cpu(), clean.index.device, scope=f"plane/{view}")
    noise = draws.normal("posterior", posterior.loc.shape[1], dtype=posterior.loc.dtype)
    return posterior.loc + posterior.scale * noise, posterior.loc, posterior.scale
