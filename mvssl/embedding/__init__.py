"""Features, keys and labels of every sample, in files that other programs read. See docs/guides/embed.md.

`embed(run, "features.npz")` does everything; `table` says what a row is, `formats` how each kind of file holds it.
"""

from mvssl.embedding.embedding import embed
from mvssl.embedding.summary import Embedded, summary_lines

__all__ = ["Embedded", "embed", "summary_lines"]
