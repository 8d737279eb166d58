"""What stands between features and an estimator: heads, critics, distributions, and masks of pairs.

in   features of two views, [n, d] vectors or [n, d, h, w] maps
out  scores of all pairs of samples, [n, n] or [n, n, l], and a mask that marks positives and negatives
"""
