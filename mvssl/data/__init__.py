"""From shards to batches: index, order, decode, load, and the check of shards. `mvssl.data.packing` makes shards.

in   patterns of shards and the recipe's columns, or any map-style dataset of dicts
out  `Batch`: tensors of n samples, and the position of each sample in the run
"""

from mvssl.data.batch import ArraySpec, Batch, Sample, as_class_labels
from mvssl.data.dataset_source import DatasetSource, as_source
from mvssl.data.loading import Loader, loader, sequential_loader
from mvssl.data.order import Order
from mvssl.data.sample_errors import BadSample, SampleError
from mvssl.data.shard_source import ShardSource, is_inside_json, open_shards
from mvssl.data.shards.patterns import find_shards, pattern_list
from mvssl.data.shards.verification import Summary, Verified, summarize_shards, verify_shards
from mvssl.data.source import Source
from mvssl.data.workers import kill_workers

__all__ = [
    "ArraySpec", "BadSample", "Batch", "DatasetSource", "Loader", "Order", "Sample", "SampleError", "ShardSource",
    "Source", "Summary", "Verified", "as_class_labels", "as_source", "find_shards", "is_inside_json",
    "kill_workers", "loader", "open_shards", "pattern_list", "sequential_loader", "summarize_shards",
    "verify_shards",
]  # fmt: skip
