"""Principal components, and which samples are encoded."""

import pytest
import torch

from mvssl.reporting.samples import encode_samples, principal_components


def test_components_are_orthogonal_ordered_and_their_shares_add_up():
    x = torch.randn(200, 5) * torch.tensor([5.0, 3, 2, 1, 0.5])
    scores, share = principal_components(x, 3)
    gram = scores.T @ scores
    assert torch.allclose(gram - gram.diag().diag(), torch.zeros(3, 3), atol=1e-2)
    assert (share.diff() <= 0).all()
    assert share.sum() == pytest.approx(float(scores.var(0).sum() / x.var(0).sum()), rel=1e-4)
    assert principal_components(torch.ones(4, 2), 3)[0].abs().max() == 0


def test_samples_are_spread_over_the_shards_with_features_and_labels(images):
    encoded = encode_samples(images, (), 10)
    assert encoded.indices == sorted(set(encoded.indices))
    assert (encoded.indices[0] < 8, encoded.indices[-1] >= 32, len(encoded.indices)) == (True, True, 10)
    assert [len(x) for x in encoded.features.values()] == [10]
    assert encoded.labels is not None
    assert encoded.class_name(2) == "<i>cat</i>"
    assert encoded.class_name(9) == "9"
    assert encoded.decode([3, 1]).index.tolist() == [encoded.indices[3], encoded.indices[1]]
