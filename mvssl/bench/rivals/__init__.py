"""Benchmarks beside methods of lightly: accuracy against CPU minutes, and speed.

in   a recipe with one view of images and `count: 2`; `pip install lightly`
out  curves of `mvssl bench rivals`; the table of `mvssl bench lightly`
"""
