"""Files, folders and arrays to shards.

in   a source: digits, torchvision:NAME, a folder, an npz
out  a folder of shards; `Packed` says what was made and what was left out
"""

from mvssl.data.packing.pack_source import Packed, pack, pack_destination

__all__ = ["Packed", "pack", "pack_destination"]
