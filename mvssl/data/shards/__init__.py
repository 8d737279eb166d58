"""Tar shards: their index, strict reading, and verification."""
