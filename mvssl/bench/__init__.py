"""Benchmarks that state their machine: the training loop, the views, the reader."""

from mvssl.bench.parts import bench_reader, bench_views
from mvssl.bench.rivals import bench_rivals
from mvssl.bench.timing import show
from mvssl.bench.train import bench_train

__all__ = ["bench_reader", "bench_rivals", "bench_train", "bench_views", "show"]
