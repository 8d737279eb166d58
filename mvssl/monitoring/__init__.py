"""Monitoring: how well a run learns, measured while it trains.

in   the model after some steps, held-out shards, and the critic's scores of the training pairs
out  held-out losses and bounds, a diagnosis in words (verdict.json), and likely mispaired samples (mispaired.jsonl)

`check.Checker` does everything at the intervals of `train.check_every`. It changes no weight and no draw of training.
"""
