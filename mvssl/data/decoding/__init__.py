"""Bytes of a field to an array, by an allow-list of decoders.

in   a column of the recipe, the name of a field, its bytes
out  a numpy array; a `SampleError` where the bytes cannot be used
"""

from mvssl.data.decoding.images import MAX_PIXELS

__all__ = ["MAX_PIXELS"]
