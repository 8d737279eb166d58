"""Processes and devices of a run: collectives, batch norm over processes, settings and memory of a device.

in   tensors and Python objects of this process
out  sums, means and rows of all processes, with gradient (`collectives`); the identity on one process;
     small messages without gloo on one machine (`local_exchange`); batch norm over all processes (`batch_norm`);
     transfers and arithmetic of a device (`devices`)
"""

from mvssl.distributed.collectives import gather, logsumexp, mean, own_rows, rank, sum_over_processes, world_size

__all__ = ["gather", "logsumexp", "mean", "own_rows", "rank", "sum_over_processes", "world_size"]
