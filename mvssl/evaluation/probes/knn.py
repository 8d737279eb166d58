"""kNN: the nearest training samples of a test sample vote for its class, weighted by similarity.

in   features and labels of train and test
out  votes [n_test, c], the weighted mean of the neighbours' labels, and their score
Wu et al., CVPR 2018, https://arxiv.org/abs/1805.01978, section 3.4: cosine similarity s, weights exp(s / T)
"""

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from mvssl.evaluation.features.labelled import Labelled, count_classes, nonzero_lengths, one_hot, unit_rows
from mvssl.evaluation.probes.fitting import refuse_one_class
from mvssl.evaluation.results.metrics import Result, score_classifier

CELLS = 2**24  # similarities, or labels of neighbours, in memory at once: 64 MB


def knn_scores(train: Labelled, test: Tensor, *, k: PositiveInt = 20, temperature: float = 0.07) -> Tensor:
    """Return the weighted mean label [n, c] of the k nearest training samples of test [n, d]."""
    k, width, parts = min(k, len(train.labels)), count_classes(train.labels), []
    norms = nonzero_lengths(train.features)
    for rows in test.split(max(1, CELLS // max(len(norms), k * width))):
        cosine = unit_rows(rows) @ train.features.T / norms  # no second copy of all of train
        similarity, neighbour = cosine.topk(k, dim=1)
        weight = (similarity / temperature).softmax(dim=1)  # exp(s / T), scaled to sum 1
        labels = one_hot(train.labels[neighbour.flatten()], width).view(-1, k, width)
        parts.append(torch.einsum("nk,nkc->nc", weight, labels))
    return torch.cat(parts)


def knn(
    train: Labelled, test: Labelled, *, k: PositiveInt = 20, temperature: PositiveFloat = 0.07, seed: int = 0
) -> Result:
    """Return the accuracy, or mean average precision, of the vote. Nothing is fitted; `seed` is for the bootstrap."""
    refuse_one_class(train.labels)
    protocol = {
        "k": min(k, len(train.labels)),
        "temperature": temperature,
        "similarity": "cosine",
        "vote": "neighbours' labels weighted by exp(similarity / temperature)",
        "chosen": "fixed beforehand",
    }
    return score_classifier(knn_scores(train, test.features, k=k, temperature=temperature), test.labels, protocol, seed)
