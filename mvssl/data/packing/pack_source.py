"""Make shards: shuffled, in webdataset's format, under train/ and val/.

in   a source: digits, torchvision:NAME, a folder of images or of paired sensors, an npz of arrays
out  DEST/train/000000.tar ..., DEST/val/..., each with names.tsv; DEST/classes.txt; DEST/left_out.tsv with each file
     that is not packed, and why; after an error, nothing at all
"""

import contextlib
import errno
import os
import secrets
import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mvssl.data.packing.folders import open_folder
from mvssl.data.packing.named_sets import open_digits, open_torchvision_set
from mvssl.data.packing.npz import open_npz_file
from mvssl.data.packing.shard_writer import one_line, write_split
from mvssl.data.packing.source import LeftOut, PackLog, PackSource, PackSplit
from mvssl.data.shards import index_shards
from mvssl.errors import DataError, MvsslError, OutputError, RecipeError, StorageError
from mvssl.files import home_path
from mvssl.text import counted, printable

_MOST_REASONS = 12  # on the screen, for files that were left out


class Packed(NamedTuple):
    """What `pack` made."""

    destination: Path
    samples: dict[str, int]  # split -> samples
    shards: dict[str, int]  # split -> shards
    fields: dict[str, int]  # field -> samples that have it
    classes: list[str] | None
    left_out: list[LeftOut]  # every file that is not packed
    lacking: list[LeftOut]  # absent files: a sample that lacks a sensor
    notes: list[str]  # guesses about the source, nodata values, ...

    def summary(self) -> list[str]:
        """Return lines for a screen: what was made, and what was left out by reason."""
        listed = self.destination / "left_out.tsv"
        lines = [
            f"{self.destination / split}: {counted(count, 'sample')} in {counted(self.shards[split], 'shard')}"
            for split, count in self.samples.items()
        ]
        lines.append("fields: " + ", ".join(f"{field} in {count:,}" for field, count in self.fields.items()))
        if self.classes:
            classes = counted(len(self.classes), "class", "classes")
            lines.append(f"{classes}, named in {self.destination / 'classes.txt'}")
        lines += [f"note: {note}" for note in self.notes]
        if self.left_out:
            lines += [
                f"left out: {counted(len(self.left_out), 'file')}, listed in {listed}",
                *_by_reason(self.left_out),
            ]
        if self.lacking:
            lines += [f"incomplete samples, listed in {listed}:", *_by_reason(self.lacking)]
        return [printable(line) for line in lines]


def pack(
    source: str,
    destination: str | Path,
    *,
    val: float = 0.1,
    seed: int = 0,
    per_shard: int = 10_000,
    root: Path | None = None,
    progress: bool = True,
) -> Packed:
    """Pack `source` into shards of `per_shard` samples under `destination`, in an order that `seed` fixes.

    Every file of a source is packed, or listed in `Packed.left_out`. `val` is the share held out where the source has
    no split of its own, class by class where there are labels. `root` is where torchvision keeps its downloads.

    Raises `RecipeError` for an unknown source, and `DataError` where its files cannot be used or some would be kept in
    part. Raises `OutputError` where `destination` holds something, before or after the work, or cannot be made, and
    `StorageError` where writing fails. After an error or an interrupt there is no destination. Of several packs to one
    destination at once, one succeeds, and the others raise `OutputError`.
    """
    destination = home_path(destination)
    if per_shard < 1 or not 0 <= val < 1 or seed < 0:
        raise RecipeError(
            f"pack: per_shard={per_shard} must be at least 1, val={val} from 0 to below 1, seed={seed} at least 0"
        )
    opened = _open_source(source, None if root is None else home_path(root))
    _refuse_different_fields(opened)
    held_out = _hold_out(opened, val, seed)
    _, path = _source_path(source)
    aside = _make_aside(destination, path if path.is_dir() else None)
    try:
        packed = _write(held_out, aside, destination, seed, per_shard, progress)
        os.rename(aside, destination)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise OutputError(
                f"{destination} was filled by another process in the meantime, perhaps from the same source. Its "
                "content is kept, and what was packed here is not"
            ) from None
        raise StorageError(f"packing to {destination} failed: {error.strerror or error}; nothing was kept") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(MvsslError):  # an index is made again when it is missing
        index_shards(sorted(destination.glob("*/*.tar")), progress, digests=True)
    return packed


def pack_destination(source: str, root: Path) -> Path:
    """Return where a recipe's `data.pack` goes: root/digits, root/cifar10 for torchvision:CIFAR10, else root/STEM.

    Raises `RecipeError` where that is the source itself.
    """
    kind, _, rest = source.partition(":")
    if kind == "torchvision":
        return root / rest.lower()
    _, path = _source_path(source)
    full = path.absolute()
    destination = root / (full.stem if full.suffix == ".npz" else full.name)
    if path.is_dir() and destination.resolve() == path.resolve():
        raise RecipeError(
            f"data.pack: {path} would be packed onto itself; set data.root to another folder than its own"
        )
    return destination


def _source_path(source: str) -> tuple[str | None, Path]:
    """Return "classes" or "pairs", if the source begins with it, and the path of a folder or npz."""
    kind, colon, rest = source.partition(":")
    named = bool(colon) and kind in ("classes", "pairs")
    return kind if named else None, home_path(rest if named else source)


def _open_source(source: str, root: Path | None) -> PackSource:
    if source == "digits":
        return open_digits()
    if source.startswith("torchvision:"):
        return open_torchvision_set(source.partition(":")[2], root)
    kind, path = _source_path(source)
    if path.is_dir():
        return open_folder(path, kind)
    if path.is_file() and path.suffix == ".npz":
        return open_npz_file(path)
    raise RecipeError(
        f"nothing to pack at {source!r} (accepted: digits, torchvision:NAME such as torchvision:CIFAR10, a folder of "
        "images, classes:FOLDER, pairs:FOLDER with a folder per sensor, FILE.npz)"
    )


def _by_reason(left_out: list[LeftOut]) -> list[str]:
    """Return a line for each reason, the commonest first, with its first file."""
    groups: dict[str, list[LeftOut]] = {}
    for each in left_out:
        groups.setdefault(each.reason.partition(":")[0], []).append(each)
    ordered = sorted(groups.values(), key=len, reverse=True)
    lines = [f"  {len(group):,}  {group[0].reason} ({group[0].path})" for group in ordered[:_MOST_REASONS]]
    more = sum(map(len, ordered[_MOST_REASONS:]))
    return [*lines, f"  {more:,}  for other reasons"] if more else lines


def _refuse_different_fields(source: PackSource) -> None:
    """Raise `DataError` where the source's own splits differ in their fields."""
    train = source.splits["train"].all_fields
    for name, split in source.splits.items():
        if split.all_fields != train:
            raise DataError(
                f"train has the fields {', '.join(sorted(train))}, and {name} has "
                f"{', '.join(sorted(split.all_fields))}; every split needs the same. Complete it, or move what one of "
                "them lacks out of the source"
            )


def _hold_out(source: PackSource, share: float, seed: int) -> PackSource:
    """Return the source with part of train as val, unless it has splits of its own."""
    train = source.splits["train"]
    if source.has_splits or share == 0:
        return source
    count = max(1, round(train.count * share))
    if count >= train.count:
        raise DataError(f"{counted(train.count, 'sample')} cannot be divided into train and val; set val to 0")
    val = _choose(train, count, np.random.default_rng(seed))
    kept = np.setdiff1d(np.arange(train.count), val)
    return source._replace(splits={"train": _select(train, kept), "val": _select(train, val)})


def _choose(split: PackSplit, count: int, generator: np.random.Generator) -> np.ndarray:
    """Return `count` samples, the same share of every class. Shuffled samples are sorted by their rank in the class."""
    shuffled = generator.permutation(split.count)
    if split.labels is None:
        return np.sort(shuffled[:count])
    labels = np.asarray(split.labels)[shuffled]
    rank = np.zeros(split.count)  # 0 .. 1 in its class
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rank[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.sort(shuffled[np.argsort(rank, kind="stable")[:count]])


def _select(split: PackSplit, rows: np.ndarray) -> PackSplit:
    name = split.name
    names = None if name is None else lambda i: name(int(rows[i]))
    return PackSplit(len(rows), lambda i: split.fields(int(rows[i])), name=names)


def _make_aside(destination: Path, source_folder: Path | None) -> Path:
    """Return a new folder beside the destination. Raises `OutputError`."""
    full = destination.absolute()
    try:
        if source_folder is not None and source_folder.resolve() in full.resolve().parents:
            raise OutputError(f"{destination} lies inside {source_folder}, which is packed; pack to a folder elsewhere")
        if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
            raise OutputError(f"{destination} exists and is not an empty folder; pack to a new one, or remove it")
        aside = full.with_name(f".{full.name}.packing-{secrets.token_hex(4)}")
        aside.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{destination} cannot be made: {error.strerror}") from None
    return aside


def _write(source: PackSource, aside: Path, destination: Path, seed: int, per_shard: int, progress: bool) -> Packed:
    fields, kinds, samples, shards = Counter(), {}, {}, {}
    log = source.log or PackLog()
    for name, split in source.splits.items():
        folder = aside / name
        folder.mkdir()
        samples[name] = write_split(split, folder, seed, per_shard, progress, fields, kinds)
        shards[name] = len(list(folder.glob("*.tar")))
        if not samples[name]:
            last = log.left_out[-1]
            raise DataError(f"no file of {name} could be packed ({printable(last.path)}: {last.reason})")
    for field, counts in kinds.items():
        if len(counts) > 1:
            listed = ", ".join(f"{kind} in {count:,}" for kind, count in counts.most_common(6))
            log.add_note(f"the samples of {field} are of several kinds ({listed}), and a column takes one")
    if source.classes:
        (aside / "classes.txt").write_text("".join(f"{one_line(name)}\n" for name in source.classes))
    if left_out := [*log.left_out, *log.lacking]:
        lines = [f"{one_line(each.path)}\t{one_line(each.reason)}\n" for each in left_out]
        (aside / "left_out.tsv").write_text("".join(lines))
    return Packed(destination, samples, shards, dict(fields), source.classes, log.left_out, log.lacking, log.notes)
