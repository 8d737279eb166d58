"""Embed: features, keys and labels of every sample, in files that other programs read.

in   a subject as `mvssl evaluate` takes it, shards, and a path that does not exist
out  FILE.npz, FILE.parquet or a folder of shards; `Embedded` says what is in it
"""

from mvssl.embedding.embedding import embed
from mvssl.embedding.summary import Embedded, summary_lines

__all__ = ["Embedded", "embed", "summary_lines"]
