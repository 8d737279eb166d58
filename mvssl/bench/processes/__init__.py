"""Benchmarks that start processes of their own: loops with other threads or environments, and the start of a run.

in   a setting of the loop, or a recipe
out  tables of `mvssl bench processes`, `busy` and `start`
"""
