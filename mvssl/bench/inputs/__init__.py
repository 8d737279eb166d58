"""Benchmarks of what feeds a model: indexes of shards, decoding, random parameters, and views.

in   random images and shards, made on the spot
out  tables and JSON that compare our way with that of other libraries
"""
