"""A run from its recipe to its results: training, and then what `train.then` lists.

in   a recipe, and shards or a dataset of Python
out  the run folder of `mvssl.training`; in it the evaluation, pictures, exported backbone and report

`api.train` is `mvssl.train`. `afterwards` runs the steps in `train.then`. `next_commands` lists commands to run next.
"""
