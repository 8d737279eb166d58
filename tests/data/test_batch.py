"""Which labels are classes, and which are refused."""

import pytest
import torch

from mvssl.data.batch import as_class_labels
from mvssl.errors import DataError


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.5, 1.0], "0.5 is no class"),
        ([float("nan"), 1.0], "nan is no class"),
        ([[0.1, 0.9]], "0.1 is no class"),
        ([[3, 7], [1, 0]], "3 is no class; .* classes: 40"),
    ],
)
def test_angles_poses_and_lists_of_class_numbers_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        as_class_labels(torch.tensor(labels))


@pytest.mark.parametrize(
    ("labels", "found"),
    [([2.0, -1.0], [2, -1]), ([7, 300], [7, 300]), ([[0, 1], [-1, -1]], [[0.0, 1.0], [-1.0, -1.0]])],
)
def test_integers_and_multi_hot_rows_are_classes(labels, found):
    assert as_class_labels(torch.tensor(labels)).tolist() == found
