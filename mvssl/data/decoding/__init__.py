"""Bytes of a field to an array, and the formats of files.

in   a column of the recipe, the name of a field, its bytes
out  a numpy array; a `SampleError` where the bytes cannot be used
"""

from mvssl.data.decoding.arrays import MAX_BYTES, channels_unclear, read_npy
from mvssl.data.decoding.fields import FIELD_FORMATS, check_field, decode_field, prepare_array, require_finite
from mvssl.data.decoding.file_signatures import extension
from mvssl.data.decoding.images import IMAGE_FORMATS, MAX_PIXELS, image_array, upright
from mvssl.data.decoding.text_fields import to_numbers
from mvssl.data.decoding.wav import read_wav

__all__ = [
    "FIELD_FORMATS",
    "IMAGE_FORMATS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "channels_unclear",
    "check_field",
    "decode_field",
    "extension",
    "image_array",
    "prepare_array",
    "read_npy",
    "read_wav",
    "require_finite",
    "to_numbers",
    "upright",
]
