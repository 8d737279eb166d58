"""From shards to batches: index, order, decode, load; and `pack` and `verify` for the shards themselves."""

from mvssl.data.batch import Batch, Sample
from mvssl.data.dataset_source import Samples, Source, as_source
from mvssl.data.decoding.faults import Bad, Undecodable
from mvssl.data.loader import loader, sequential
from mvssl.data.order import Order
from mvssl.data.packing.packing import Packed, pack
from mvssl.data.shard_source import Shards, open_shards
from mvssl.data.shards.paths import expand
from mvssl.data.shards.verification import Summary, Verified, summarize, verify

__all__ = [
    "Bad",
    "Batch",
    "Order",
    "Packed",
    "Sample",
    "Samples",
    "Shards",
    "Source",
    "Summary",
    "Undecodable",
    "Verified",
    "as_source",
    "expand",
    "loader",
    "open_shards",
    "pack",
    "sequential",
    "summarize",
    "verify",
]
