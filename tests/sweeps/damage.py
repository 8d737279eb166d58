"""Damages shards and checkpoints at every place there is, and counts what is found. Not a part of `pytest`.

    python tests/sweeps/damage.py --json damage.json

Shards are cut at every byte, get every header overwritten and every bit of every header and body flipped. Checkpoints
get every bit of every file flipped, and every file deleted, emptied and cut. What is counted as missed is damage that
neither the index nor, for bodies, `mvssl index --digests` tells, although a byte of a header or a body changed.
"""

import argparse
import json
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import small_runs
from small_runs import trained

from mvssl.checkpoints import store
from mvssl.data.shards.shard_file import open_shard
from mvssl.data.shards.tar import Archive
from mvssl.errors import DataError

STEP = 97  # bytes between cuts, as in other projects' figures


def is_refused(shard: Path) -> bool:
    try:
        with open_shard(shard) as opened:
            list(Archive(opened))
    except DataError:
        return True
    return False


def digests(shard: Path) -> list[int]:
    """What `mvssl index --digests` would keep of each body."""
    with open_shard(shard) as opened:
        return [opened.digest(member.offset, member.size) for member in Archive(opened)]


def count(name: str, shard: Path, damaged: Iterator[tuple[str, bytes]], is_found: Callable[[Path], bool]) -> dict:
    tried, missed, file = 0, [], shard.with_name("damaged.tar")
    for place, body in damaged:
        file.write_bytes(body)
        tried += 1
        if not is_found(file):
            missed.append(place)
    print(f"{name}: {tried - len(missed)} of {tried} found", flush=True)
    return {"name": name, "tried": tried, "found": tried - len(missed), "missed": missed[:20]}


def flips(whole: bytes, places: Iterator[int]) -> Iterator[tuple[str, bytes]]:
    for place in places:
        for bit in range(8):
            changed = bytearray(whole)
            changed[place] ^= 1 << bit
            yield f"byte {place} bit {bit}", bytes(changed)


def of_shards(folder: Path) -> list[dict]:
    shard = small_runs.write_shards(folder, counts=(6,)) / "000000.tar"
    whole = shard.read_bytes()
    with tarfile.open(shard) as tar:
        members = tar.getmembers()
    end = members[-1].offset_data + -(-members[-1].size // 512) * 512 + 1024
    headers = [member.offset for member in members]
    padding = (148, 154, 155)  # of the checksum itself, where a bit may change and no value does
    header_bytes = (start + i for start in headers for i in range(512) if i not in padding)
    body_bytes = (member.offset_data + i for member in members for i in range(member.size))
    before = digests(shard)
    return [
        count("shards cut at every byte", shard, ((str(n), whole[:n]) for n in range(end)), is_refused),
        count(f"shards cut every {STEP} bytes", shard, ((str(n), whole[:n]) for n in range(0, end, STEP)), is_refused),
        *(
            count(
                f"headers overwritten with {name}", shard,
                ((str(start), whole[:start] + filling + whole[start + 512 :]) for start in headers), is_refused,
            )
            for name, filling in (("zeros", bytes(512)), ("ones", b"\xff" * 512))
        ),
        count("bits of headers flipped", shard, flips(whole, header_bytes), is_refused),
        count("bits of bodies flipped, with digests", shard, flips(whole, body_bytes), lambda f: digests(f) != before),
    ]  # fmt: skip


def of_checkpoints(folder: Path) -> list[dict]:
    model, optimizer = trained(0)
    found = store.save_checkpoint(folder, 1, model, optimizer, {"bad": 0}, keep=2, recipe="a: 1\n")
    counts = []
    for file in sorted(found.iterdir()):
        body, tried, missed = file.read_bytes(), 0, []
        changes = [*flips(body, iter(range(len(body)))), *((f"cut at {n}", body[:n]) for n in range(len(body)))]
        for place, changed in changes:
            file.write_bytes(changed)
            tried += 1
            if not store.find_damage(found):
                missed.append(place)
        file.unlink()
        tried += 1
        if not store.find_damage(found):
            missed.append("deleted")
        file.write_bytes(body)
        print(f"checkpoint, {file.name}: {tried - len(missed)} of {tried} found", flush=True)
        counts.append({"name": file.name, "tried": tried, "found": tried - len(missed), "missed": missed[:20]})
    return counts


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = [*of_shards(Path(folder)), *of_checkpoints(Path(folder))]
    if given.json:
        given.json.write_text(json.dumps(counts, indent=1))
    sys.exit(any(each["missed"] for each in counts))


if __name__ == "__main__":
    main()
