"""The verbs of the command line that make shards and look into them; `mvssl.commands` lists them.

Not in `mvssl.data`, whose import brings torch: `mvssl --help` is to be quick.
"""

import signal
from pathlib import Path
from typing import Annotated

import typer

from mvssl.errors import DataError, Interrupted
from mvssl.words import counted

ShardPatterns = Annotated[list[str], typer.Argument(metavar="SHARDS...", help="paths, globs, {000..012} braces")]


def pack(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="digits, torchvision:NAME, a folder, an .npz file")],
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="new folder, for DEST/train and DEST/val")],
    val: Annotated[float, typer.Option(help="share held out where the source has no split of its own")] = 0.1,
    seed: Annotated[int, typer.Option(help="order of the samples")] = 0,
    per_shard: Annotated[int, typer.Option(help="samples per shard")] = 10_000,
    root: Annotated[Path | None, typer.Option(help="where torchvision keeps its downloads")] = None,
) -> None:
    """Make shards from an image folder, a folder of paired sensors, arrays, or a set that torchvision knows.

    What is not packed is told by reason, and listed file by file in DEST/left_out.tsv.
    """
    from mvssl.data.pack import pack as write

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup's stays as it is
            signal.signal(number, _stop)
    packed = write(source, destination, val=val, seed=seed, per_shard=per_shard, root=root)
    print("\n".join(packed.summary()))


def _stop(number: int, _: object) -> None:
    raise Interrupted(f"stopped by {signal.Signals(number).name}; nothing was kept", 128 + number)


def index(shards: ShardPatterns) -> None:
    """Read the headers of shards strictly, cache the index, and say what they hold."""
    from mvssl.data.verify import summarize

    found = summarize(shards)
    for path, samples, size in found.shards:
        print(f"{path}: {counted(samples, 'sample')}, {counted(size, 'byte')}")
    print(f"{counted(found.samples, 'sample')} in {counted(len(found.shards), 'shard')}, {found.bytes:,} bytes")
    for field, (count, size) in found.fields.items():
        print(f"  {field}: in {counted(count, 'sample')}, {counted(size, 'byte')}")


def verify(shards: ShardPatterns) -> None:
    """Read every header anew and decode every field; exits with 65 where anything is wrong."""
    from mvssl.data.verify import verify as look

    seen = look(shards)
    whole = (seen.shards, "shard"), (seen.samples, "sample"), (seen.decoded, "field")
    print(", ".join(counted(*each) for each in whole) + f" decoded, {seen.bytes:,} bytes")
    for field, count in seen.lacking.items():
        print(f"  {field}: lacking in {counted(count, 'sample')}")
    for field, count in seen.unknown.items():
        print(f"  {field}: {count:,} not looked into, as mvssl has no decoder for it")
    for fault in seen.faults:
        place = " ".join(part for part in (fault.shard, fault.key, fault.field) if part)
        print(f"  bad: {place}: {fault.reason}")
    if seen.faults:
        raise DataError(counted(len(seen.faults), "fault"))
