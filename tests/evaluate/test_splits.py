"""Which samples count, and how their classes are numbered."""

import pytest
import torch

from mvssl.errors import DataError
from mvssl.evaluate.splits import Classes


def test_classes_are_numbered_alike_whatever_their_labels():
    train, test = torch.tensor([500, 7, 500]), torch.tensor([7, 9])
    classes = Classes.of(train, test)
    assert (classes(train).tolist(), classes(test).tolist()) == ([2, 0, 2], [0, 1])
    assert (len(classes), classes.left_out, classes.chance) == (3, 0, 0.0)


def test_classes_without_a_positive_in_both_splits_are_left_out_and_counted():
    train = torch.tensor([[1.0, 0, 1, 0], [1, 0, 0, 0]])
    test = torch.tensor([[1.0, 1, 0, 0], [0, 1, 0, 0]])
    classes = Classes.of(train, test)
    assert (classes(train).tolist(), classes(test).tolist()) == ([[1], [1]], [[1], [0]])
    assert (len(classes), classes.left_out, classes.chance) == (1, 3, 0.5)
    with pytest.raises(DataError, match="no class has a positive"):
        Classes.of(train[:, 1:2], test[:, 1:2])
