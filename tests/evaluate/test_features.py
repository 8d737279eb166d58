"""Features flat and side by side."""

import torch

from mvssl.evaluate.features import flatten, join, pooled


def test_small_maps_are_flattened_and_large_ones_average_pooled():
    assert flatten(torch.randn(2, 8, 4, 4)).shape == (2, 128)
    x = torch.randn(2, 3, 224, 224)
    assert pooled((3, 224, 224)) == (3, 52, 52)
    assert flatten(x).shape == (2, 3 * 52 * 52)
    assert pooled((3, 64, 64), limit=3072) == (3, 32, 32)
    four = x.unflatten(2, (112, 2)).unflatten(4, (112, 2)).mean((3, 5))  # means of 2 x 2 pixels
    assert torch.allclose(flatten(x, limit=3 * 112 * 112), four.flatten(1), atol=1e-6)
    assert pooled((6, 20_000)) == (6, 1365)  # signals
    assert pooled((10_000, 2, 2)) == (10_000, 1, 1)  # channels are never mixed


def test_views_are_joined_after_each_is_standardised_by_its_train():
    train = {"a": torch.randn(50, 2) * 100, "b": torch.randn(50, 3)}
    test = {"a": train["a"][:5], "b": train["b"][:5]}
    fitted, tested = join(train, test)
    assert torch.allclose(fitted.mean(0), torch.zeros(5), atol=1e-5)
    assert torch.allclose(fitted.std(0, correction=0), torch.ones(5), atol=1e-5)
    assert tested.equal(fitted[:5])
