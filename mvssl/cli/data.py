"""The verbs of the command line that make, index and verify shards; `mvssl.cli.commands` registers them.

They are not in `mvssl.data`, whose import takes seconds: `mvssl --help` must be quick.
"""

from pathlib import Path
from typing import Annotated

import typer

from mvssl.errors import DataError
from mvssl.text import counted, printable

ShardPatterns = Annotated[list[str], typer.Argument(metavar="SHARDS...", help="paths, globs, {000..012} braces")]


def pack(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="digits, torchvision:NAME, a folder, an .npz file")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="new folder, for DEST/train and DEST/val")],
    val: Annotated[float, typer.Option(help="held-out share, where the source has no split of its own")] = 0.1,
    seed: Annotated[int, typer.Option(help="seed of the order of samples")] = 0,
    per_shard: Annotated[int, typer.Option(help="samples per shard")] = 10_000,
    root: Annotated[Path | None, typer.Option(help="where torchvision keeps its downloads")] = None,
) -> None:
    """Make shards from an image folder, a folder of paired sensors, arrays, or a set that torchvision knows.

    What is not packed is counted by reason, and listed file by file in DEST/left_out.tsv.
    """
    from mvssl.data import pack as write

    packed = write(source, destination, val=val, seed=seed, per_shard=per_shard, root=root)
    print("\n".join(packed.summary()))


def index(
    shards: ShardPatterns,
    digests: Annotated[bool, typer.Option("--digests", help="also read every file and keep its CRC-32")] = False,
) -> None:
    """Read the headers of shards strictly, cache the index, and say what they hold."""
    from mvssl.data import summarize_shards

    found = summarize_shards(shards, digests=digests)
    for path, samples, size in found.shards:
        _say(f"{path}: {counted(samples, 'sample')}, {counted(size, 'byte')}")
    _say(f"{counted(found.samples, 'sample')} in {counted(len(found.shards), 'shard')}, {found.bytes:,} bytes")
    for field, (count, size) in found.fields.items():
        _say(f"  {field}: in {counted(count, 'sample')}, {counted(size, 'byte')}")
    _say_checked(found.checked, len(found.shards))
    if found.renewed:
        _say(f"  look: {counted(found.renewed, 'body', 'bodies')} had another digest in the index before")
    for hint in found.hints:
        _say(f"  look: {hint}")


def verify(shards: ShardPatterns) -> None:
    """Check shards: read headers again, decode every field, compare digests; exit with 65 where anything is wrong."""
    from mvssl.data import verify_shards

    seen = verify_shards(shards)
    whole = (seen.shards, "shard"), (seen.samples, "sample"), (seen.decoded, "field")
    _say(", ".join(counted(*each) for each in whole) + f" decoded, {seen.bytes:,} bytes")
    for field, count in seen.lacking.items():
        _say(f"  {field}: lacking in {counted(count, 'sample')}")
    for field, count in seen.unknown.items():
        _say(f"  {field}: {count:,} not looked into, as mvssl has no decoder for it")
    _say_checked(seen.checked, seen.shards)
    for hint in seen.hints:
        _say(f"  look: {hint}")
    for fault in seen.faults:
        place = " ".join(part for part in (fault.shard, fault.key, fault.field) if part)
        _say(f"  bad: {place}: {fault.reason}")
    if seen.faults:
        raise DataError(counted(len(seen.faults), "fault"))


def _say_checked(checked: int, shards: int) -> None:
    if checked:
        _say(f"  digests of all bodies: in the index of {checked:,} of {counted(shards, 'shard')}")


def _say(line: str) -> None:
    """Print what may quote keys, fields and names of files."""
    print(printable(line))
