"""A run from its recipe to its results: training, and then what `train.then` lists.

in   a recipe, and shards or a dataset of Python
out  the run folder of `mvssl.training`; in it the evaluation, pictures, exported backbone and report

`api.train` is `mvssl.train`; `afterwards` runs `train.then`, `pictures` draws, `next_commands` lists what to type.
"""
