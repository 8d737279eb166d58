"""Training: the loop, what it writes, and what follows it.

in   a recipe, and shards or a dataset of Python
out  a run folder: checkpoints, metrics.jsonl, exit.json, and the results that `train.then` lists

`loop.train` does everything: `preparation` builds a `Trainer`, `step` runs the optimizer steps, `watchdog` finds hangs,
`saving` and `resume` write and read checkpoints, `afterwards` evaluates and exports after the last step.
"""
