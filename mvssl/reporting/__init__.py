"""A run as one HTML page that fetches nothing: see docs/guides/report.md.

gather reads the run folder, samples opens checkpoint and shards, each of sections makes a part, page joins them.
"""

from mvssl.reporting.build import Written, report

__all__ = ["Written", "report"]
