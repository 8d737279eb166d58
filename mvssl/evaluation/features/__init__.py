"""Frozen features of labelled samples, in the form that probes read.

in   a recipe with its shards and labels, encoders with their weights, and names of layers
out  `Split`s: labels, and features [n, d] float32 by view, of all samples that have every view and a label;
     `ProbeInputs`, which give them to a probe for one encoder, layer and view

All processes compute features together. The main process keeps them in a cache on the disk, mapped into memory.
"""
