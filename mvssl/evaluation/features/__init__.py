"""Features of samples: which ones, where they come from, and how probes get them.

in   a subject's encoders, shards, layers
out  features kept in a cache, splits with labels, and `ProbeInputs`
"""
