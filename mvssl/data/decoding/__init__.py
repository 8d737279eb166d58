"""Bytes of a field to an array, and the formats of files.

in   a column of the recipe, the name of a field, its bytes
out  a numpy array; a `SampleError` if the bytes cannot be used
"""

from mvssl.data.decoding.fields import FIELD_FORMATS, check_field, decode_field

__all__ = ["FIELD_FORMATS", "check_field", "decode_field"]
