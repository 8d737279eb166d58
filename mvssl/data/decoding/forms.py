"""One shape and one type for all samples of a column, since a batch is a stack."""

from collections import Counter

import numpy as np

from mvssl.data.batch import Form
from mvssl.data.decoding.faults import Undecodable
from mvssl.errors import DataError


def common_form(name: str, arrays: list[np.ndarray]) -> Form:
    """What more than half of `arrays` look like. Raises `DataError` where they differ too much for that."""
    counts = Counter((array.shape, array.dtype) for array in arrays)
    (shape, dtype), most = counts.most_common(1)[0]
    if 2 * most <= len(arrays) and len(arrays) > 1:
        seen = ", ".join(f"{list(shape)} {dtype}" for shape, dtype in list(counts)[:4])
        raise DataError(f"columns.{name}: its samples differ in shape ({seen}){_advice(list(counts))}")
    return Form(shape, dtype)


def _advice(forms: list[tuple[tuple[int, ...], np.dtype]]) -> str:
    shapes = [shape for shape, _ in forms]
    if all(len(shape) == 2 for shape in shapes):
        return "; give the column length: N, or mode: mono to sound of one channel and of several"
    if any(len(shape) != 3 for shape in shapes):
        return "; pack them in one shape"
    advice = []
    if len({shape[1:] for shape in shapes}) > 1:
        advice.append("size: N or size: [HEIGHT, WIDTH]")
    if len({shape[0] for shape in shapes}) > 1:
        advice.append("mode: rgb or mode: gray")
    return f"; give the column {' and '.join(advice)}" if advice else "; store all of them with the same number of bits"


def conform(name: str, array: np.ndarray, form: Form) -> np.ndarray:
    """`array` itself. Raises `Undecodable` where it is not of the column's `form`."""
    if array.shape == form.shape and array.dtype == form.dtype:
        return array
    advice = _advice([(array.shape, array.dtype), (form.shape, form.dtype)])
    given, wanted = f"{list(array.shape)} {array.dtype}", f"{list(form.shape)} {form.dtype}"
    raise Undecodable(f"it is {given} where the column is {wanted}{advice}", name)
