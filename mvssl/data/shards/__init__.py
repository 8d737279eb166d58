"""Tar shards: their index, strict reading, and verification.

in   paths and patterns of shards
out  an `Index` of each shard; the bytes of a field; counts and faults of shards
"""

from mvssl.data.shards.paths import find_shards, pattern_list
from mvssl.data.shards.tar import LONGEST_NAME
from mvssl.data.shards.verification import Summary, Verified, summarize_shards, verify_shards

__all__ = ["LONGEST_NAME", "Summary", "Verified", "find_shards", "pattern_list", "summarize_shards", "verify_shards"]
