"""Training: the steps of a run, what they write, and how a run continues.

in   a recipe, and shards or a dataset of Python
out  a run folder: checkpoints, metrics.jsonl, the results of checks, exit.json

`preparation` builds a `Trainer`, `step` runs the optimizer steps, `loop` saves and checks between them, `watchdog`
finds hangs, `checkpointing` writes and reads checkpoints. `mvssl.train` (`mvssl.pipeline`) calls them in turn.
"""
