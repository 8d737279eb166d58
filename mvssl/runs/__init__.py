"""Run folders: lock, describe, continue and open them.

in   a folder, a recipe, the way a command ended, records of metrics
out  the files of a run except its checkpoints (`folder`, `exit_record`, `line_files`);
     the series of its metrics (`metric_series`);
     `load_run` returns a `LoadedRun` with model, views and weights
"""

from mvssl.runs.load import LoadedRun, load_run

__all__ = ["LoadedRun", "load_run"]
