"""The commands `pack`, `index` and `verify` for shards; heavy imports stand inside them."""

from pathlib import Path
from typing import Annotated

import typer

from mvssl.errors import DataError
from mvssl.text import counted, printable

ShardPatterns = Annotated[list[str], typer.Argument(metavar="SHARDS...", help="paths, globs, {000..012} braces")]


def pack_command(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="digits, torchvision:NAME, a folder, an .npz file")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="new folder, for DEST/train and DEST/val")],
    val: Annotated[float, typer.Option(help="share of held-out samples, if the source has no split of its own")] = 0.1,
    seed: Annotated[int, typer.Option(help="seed of the order of samples")] = 0,
    per_shard: Annotated[int, typer.Option(help="samples per shard")] = 10_000,
    root: Annotated[Path | None, typer.Option(help="where torchvision keeps its downloads")] = None,
) -> None:
    """Make shards from a folder of images, a folder of paired sensors, arrays, or a data set of torchvision.

    Files that are not packed are counted by reason, and listed in DEST/left_out.tsv.
    """
    from mvssl.data.packing import pack as write

    packed = write(source, destination, val=val, seed=seed, per_shard=per_shard, root=root)
    print("\n".join(packed.summary()))


def index_command(
    shards: ShardPatterns,
    digests: Annotated[bool, typer.Option("--digests", help="also read every file and store its CRC-32")] = False,
) -> None:
    """Read the headers of shards strictly, cache their indexes, and print a summary."""
    from mvssl.data import summarize_shards

    summary = summarize_shards(shards, digests=digests)
    for path, samples, size in summary.shards:
        _print_line(f"{path}: {counted(samples, 'sample')}, {counted(size, 'byte')}")
    _print_line(
        f"{counted(summary.samples, 'sample')} in {counted(len(summary.shards), 'shard')}, {summary.bytes:,} bytes"
    )
    for field, (count, size) in summary.fields.items():
        _print_line(f"  {field}: in {counted(count, 'sample')}, {counted(size, 'byte')}")
    _print_digests(summary.checked, len(summary.shards))
    if summary.renewed:
        _print_line(f"  look: {counted(summary.renewed, 'body', 'bodies')} had another digest in the index before")
    for hint in summary.hints:
        _print_line(f"  look: {hint}")


def verify_command(shards: ShardPatterns) -> None:
    """Check shards: read headers again, decode every field, compare digests. Exit with 65 if anything is wrong."""
    from mvssl.data import verify_shards

    verified = verify_shards(shards)
    totals = (verified.shards, "shard"), (verified.samples, "sample"), (verified.decoded, "field")
    _print_line(", ".join(counted(*each) for each in totals) + f" decoded, {verified.bytes:,} bytes")
    for field, count in verified.lacking.items():
        _print_line(f"  {field}: lacking in {counted(count, 'sample')}")
    for field, count in verified.unknown.items():
        _print_line(f"  {field}: {count:,} not checked, as mvssl has no decoder for it")
    _print_digests(verified.checked, verified.shards)
    for hint in verified.hints:
        _print_line(f"  look: {hint}")
    for fault in verified.faults:
        place = " ".join(part for part in (fault.shard, fault.key, fault.field) if part)
        _print_line(f"  bad: {place}: {fault.reason}")
    if verified.faults:
        raise DataError(counted(len(verified.faults), "fault"))


def _print_digests(checked: int, shards: int) -> None:
    if checked:
        _print_line(f"  digests of all bodies: in the index of {checked:,} of {counted(shards, 'shard')}")


def _print_line(line: str) -> None:
    """Print a line that may contain keys, fields and names of files; control characters are escaped."""
    print(printable(line))
