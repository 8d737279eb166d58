"""Benchmarks: samples per second of the training loop, the views and the reader; accuracy against CPU minutes.

in   a recipe; to compare with other methods also lightly
out  the measurements with machine and versions, as JSON and as lines for the terminal
"""

from mvssl.bench.inputs.views import bench_views
from mvssl.bench.rivals.accuracy import bench_rivals
from mvssl.bench.speed import bench_reader, bench_train
from mvssl.bench.timing import show

__all__ = ["bench_reader", "bench_rivals", "bench_train", "bench_views", "show"]
