"""Labels as classes: what probes and checks take them for, and what they refuse to.

in   labels as they were decoded, [n] or [n, c]
out  class numbers int64 [n], or multi-hot float32 [n, c]; negative, or a row of negatives, where there is no label
"""

from torch import Tensor

from mvssl.errors import DataError


def as_classes(labels: Tensor) -> Tensor:
    """Raises `DataError` for an angle, a pose, a list of class numbers: rounded, they would pass for classes."""
    if labels.ndim == 2:
        wrong = (labels != 0) & (labels != 1) & (labels >= 0) | labels.isnan()
        said = "a list is 0 or 1 for each class; of a list of class numbers say how many there are: classes: 40"
    else:
        wrong = labels != labels.floor() if labels.is_floating_point() else labels != labels
        said = "a label is the number of a class, a whole one"
    if wrong.any():
        raise DataError(f"data.label: {labels[wrong][0].item():g} is no class; {said}")
    return labels.float() if labels.ndim == 2 else labels.long()
