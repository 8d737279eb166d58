"""Embed: write features, keys and labels of every sample to files that other programs read.

in   a subject as for `mvssl evaluate`, shards, and a path that does not exist
out  FILE.npz, FILE.parquet or a folder of shards;
     an `Embedded` with its contents, and lines for the user (`summary_lines`)
"""

from mvssl.embedding.embedding import embed
from mvssl.embedding.summary import Embedded, summary_lines

__all__ = ["Embedded", "embed", "summary_lines"]
