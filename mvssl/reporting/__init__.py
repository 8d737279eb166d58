"""A run as one HTML page that loads nothing from a network: see docs/guides/report.md.

in   a run folder, finished or still in training
out  RUN/report.html, and a `WrittenReport` that names the sections whose data are absent

`run_files` reads the files of the run. `inputs` opens its checkpoint and shards. Each module of `sections` computes the
content of some sections. `build` puts them in order, and page.html.j2 shows them.
"""

from mvssl.reporting.build import WrittenReport, report

__all__ = ["WrittenReport", "report"]
