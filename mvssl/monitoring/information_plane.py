"""The information plane: the information of a code about its input, I(x; z), and about the label, I(z; y).

in   p(z | x), independent normals with mean and scale [n, d], and a draw z [n, d] of each; labels int64 [n]
out  nats. I(x; z) from below and above, without a critic, because the density is known
     lower  E log p(z|x) - log mean_j p(z|x_j) over all n samples, at most log n
     upper  the same with the mean over the n - 1 others
     I(z; y) >= H(y) - cross-entropy of a logistic regression that was fitted on other samples (Barber, Agakov, 2003)
Poole et al., ICML 2019, https://arxiv.org/abs/1905.06922, sections 2.1 and 2.3; Tishby et al., physics/0004057
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

MIXED_IN = 1e-3  # of the even distribution in the probe's, so that no label is impossible
CELLS = 2**22


class Information(NamedTuple):
    """A sandwich of mutual information in nats: in expectation the truth lies between the two."""

    lower: float
    upper: float


def input_information_bounds(mean: Tensor, scale: Tensor, z: Tensor) -> Information:
    """I(x; z) of normals [n, d] and a draw of each [n, d]; the lower bound cannot exceed log n."""
    mean, scale, z = (x.detach().double() for x in (mean, scale, z))
    n = len(z)
    lower, upper = [], []
    for rows in torch.arange(n, device=z.device).split(max(1, CELLS // n)):
        density = log_density(mean, scale, z[rows])  # [r, n]
        own = density[torch.arange(len(rows), device=z.device), rows]
        others = density.scatter(1, rows[:, None], -math.inf)
        lower.append(own - density.logsumexp(1) + math.log(n))
        upper.append(own - others.logsumexp(1) + math.log(n - 1))
    return Information(torch.cat(lower).mean().item(), torch.cat(upper).mean().item())


def log_density(mean: Tensor, scale: Tensor, z: Tensor) -> Tensor:
    """log p(z_i | x_j), [r, n]: three products of matrices in place of a block [r, n, d]."""
    precision = scale.square().reciprocal()
    square = z.square() @ precision.T - 2 * z @ (mean * precision).T + (mean.square() * precision).sum(1)
    constant = scale.log().sum(1) + 0.5 * z.shape[1] * math.log(2 * math.pi)
    return -0.5 * square - constant


def label_information_bound(z: Tensor, labels: Tensor, fit_z: Tensor, fit_labels: Tensor) -> float:
    """I(z; y) from below: z [n, d] and labels [n] to measure on, others to fit the probe on.

    H(y) is that of the measured labels. Below 0 if the probe is worse than the frequencies of the labels.
    """
    from sklearn.linear_model import LogisticRegression  # slow to load, and not every run has labels

    known, together = torch.unique(torch.cat([fit_labels, labels]), return_inverse=True)
    y_fit, y = (part.cpu().numpy() for part in together.split([len(fit_labels), len(labels)]))
    mean, scale = fit_z.mean(0), fit_z.std(0).clamp(min=1e-6)
    x_fit, x = (((part - mean) / scale).double().cpu().numpy() for part in (fit_z, z))
    share = np.full((len(y), len(known)), 1.0 / len(known))
    if len(np.unique(y_fit)) > 1:
        probe = LogisticRegression(max_iter=200).fit(x_fit, y_fit)
        share *= MIXED_IN
        share[:, probe.classes_] += (1 - MIXED_IN) * probe.predict_proba(x)
    frequency = np.bincount(y, minlength=len(known)) / len(y)
    entropy = -sum(p * math.log(p) for p in frequency if p > 0)
    return float(entropy + np.log(share[np.arange(len(y)), y]).mean())
