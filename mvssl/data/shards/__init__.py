"""Tar shards: their index, strict reading of fields, and verification.

in   patterns of shards
out  an `Index` of each shard; the bytes of a field (`FieldReader`); counts and faults of shards
"""

from mvssl.data.shards.index_cache import index_shards
from mvssl.data.shards.patterns import find_shards, pattern_list
from mvssl.data.shards.verification import Summary, Verified, summarize_shards, verify_shards

__all__ = [
    "Summary", "Verified", "find_shards", "index_shards", "pattern_list", "summarize_shards", "verify_shards",
]  # fmt: skip
