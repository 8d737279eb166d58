"""Work spread over processes and devices: collectives, batch norm over processes, and the memory of a device.

in   tensors of this process
out  what all processes have together, with gradient; the identity on one process
"""

from mvssl.distributed.collectives import gather, logsumexp, mean, own_rows, rank, total, world

__all__ = ["gather", "logsumexp", "mean", "own_rows", "rank", "total", "world"]
