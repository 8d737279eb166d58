"""Run folders: claimed, described, continued, and opened again.

in   a folder, a recipe, how a command ended
out  the files of a run but for its checkpoints; `load_run` gives a `LoadedRun` with model, views and weights
"""

from mvssl.runs.load import LoadedRun, load_run

__all__ = ["LoadedRun", "load_run"]
