"""kNN: a test sample is what its nearest training samples are, weighted by how near they are.

in   features and labels of train and test
out  votes [n_test, c], the weighted mean of the neighbours' labels, and what they score
Wu et al., CVPR 2018, https://arxiv.org/abs/1805.01978, section 3.4: cosine similarity s, weights exp(s / T)
"""

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from mvssl.evaluation.features.labelled import Labelled, classes, lengths, one_hot, unit
from mvssl.evaluation.probes.base import FunctionProbe
from mvssl.evaluation.probes.fitting import refuse_one_class
from mvssl.evaluation.results.metrics import Result, judge

CELLS = 2**24  # similarities, or labels of neighbours, held at once: 64 MB


def votes(train: Labelled, test: Tensor, *, k: PositiveInt = 20, temperature: float = 0.07) -> Tensor:
    """Weighted mean label of the k nearest training samples: test [n, d] -> [n, c]."""
    k, width, found = min(k, len(train.labels)), classes(train.labels), []
    far = lengths(train.features)
    for rows in test.split(max(1, CELLS // max(len(far), k * width))):
        cosine = unit(rows) @ train.features.T / far  # no second copy of all of train
        similarity, neighbour = cosine.topk(k, dim=1)
        weight = (similarity / temperature).softmax(dim=1)  # exp(s / T), scaled to sum 1
        labels = one_hot(train.labels[neighbour.flatten()], width).view(-1, k, width)
        found.append(torch.einsum("nk,nkc->nc", weight, labels))
    return torch.cat(found)


def knn(
    train: Labelled, test: Labelled, *, k: PositiveInt = 20, temperature: PositiveFloat = 0.07, seed: int = 0
) -> Result:
    """Accuracy, or mean average precision, of the weighted vote. Nothing is fitted; `seed` is the bootstrap's."""
    refuse_one_class(train.labels)
    protocol = {
        "k": min(k, len(train.labels)),
        "temperature": temperature,
        "similarity": "cosine",
        "vote": "neighbours' labels weighted by exp(similarity / temperature)",
        "chosen": "fixed beforehand",
    }
    return judge(votes(train, test.features, k=k, temperature=temperature), test.labels, protocol, seed)


class KNN(FunctionProbe):
    """`knn`."""

    function = knn
