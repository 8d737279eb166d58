"""Clustering: how well the clusters that k-means finds without labels agree with the labels.

in   features and labels of train and test; the labels of train only give the number of clusters
out  `nmi`, mutual information over the mean of both entropies (0 unrelated, 1 the same partition), and `ari`, the
     adjusted Rand index (0 by chance, 1 the same, below 0 worse than chance), each the mean over seeds
"""

import warnings

import torch
from pydantic import PositiveInt

from mvssl.evaluation.features.labelled import Labelled, unit_rows
from mvssl.evaluation.probes.fitting import refuse_one_class
from mvssl.evaluation.results.metrics import Metric, NotPossible, Result, mean_over_draws

NMI, ARI = Metric("nmi"), Metric("ari", low=-0.5)
SAMPLES = 10_000  # of train that k-means is fitted to; more change the centres little


def cluster(train: Labelled, test: Labelled, *, seeds: PositiveInt = 5, seed: int = 0) -> list[Result]:
    """Return NMI and ARI of k-means on train, with one cluster per class. Test samples get the nearest centre.

    Raise `NotPossible` for multi-hot labels, because one sample may then have several classes.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    if train.labels.ndim == 2:
        raise NotPossible("clusters are compared with one class per sample, but these labels have several")
    refuse_one_class(train.labels)
    kinds = len(train.labels.unique())
    order = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(seed))[:SAMPLES]
    x, y = (unit_rows(part).cpu().numpy() for part in (train.features[order], test.features))
    truth = test.labels.cpu().numpy()
    nmi, ari = [], []
    for start in range(seeds):
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # fewer distinct rows than clusters
            clusters = KMeans(kinds, n_init=1, random_state=seed + start).fit(x).predict(y)  # pyright: ignore[reportArgumentType]
        nmi.append(float(normalized_mutual_info_score(truth, clusters)))
        ari.append(float(adjusted_rand_score(truth, clusters)))
    protocol = {
        "clusters": kinds,
        "seeds": seeds,
        "algorithm": "k-means++ start, one per seed (scikit-learn)",
        "scaling": "unit length",
        "fitted_on": f"{len(x)} samples of train, without labels",
        "chosen": "as many clusters as train has classes",
        "standard_error": "std over seeds / sqrt(seeds); says nothing of other test samples",
    }
    return [mean_over_draws(nmi, protocol, NMI), mean_over_draws(ari, protocol, ARI)._replace(chance=0.0)]
