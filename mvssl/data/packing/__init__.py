"""Files, folders and arrays to shards.

in   a source: digits, torchvision:NAME, a folder, an npz
out  a folder of shards; `Packed` says what was made and what was left out
"""

from mvssl.data.packing.pack_source import Packed, pack, pack_destination
from mvssl.data.packing.source import npy_bytes

__all__ = ["Packed", "npy_bytes", "pack", "pack_destination"]
