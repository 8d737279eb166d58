"""A run as one HTML page without network access: see docs/guides/report.md.

in   a run folder, finished or still in training
out  RUN/report.html: `facts` reads the files, `samples` opens checkpoint and shards, each module of `sections`
     computes some sections of the page, and page.html.j2 shows them
"""

from mvssl.reporting.build import WrittenReport, report

__all__ = ["WrittenReport", "report"]
