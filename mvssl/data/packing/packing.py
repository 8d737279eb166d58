"""Make shards: shuffled, in webdataset's format, under train/ and val/.

in   a source: digits, torchvision:NAME, a folder of images or of paired sensors, an npz of arrays
out  DEST/train/000000.tar ..., DEST/val/..., each with names.tsv; DEST/classes.txt; DEST/left_out.tsv with each file
     that is not packed, and why; or nothing at all
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

from mvssl.data.packing import folders, npz, sources
from mvssl.data.packing.sources import Material, Split
from mvssl.data.packing.survey import Account, LeftOut
from mvssl.data.packing.writing import one_line, write_split
from mvssl.data.shards.index import build
from mvssl.errors import DataError, MvsslError, OutputError, RecipeError, StorageError
from mvssl.files import home_path
from mvssl.text import counted, printable

_REASONS = 12  # reasons on the screen for which files were left out


class Packed(NamedTuple):
    """What `pack` made."""

    destination: Path
    samples: dict[str, int]  # split -> samples
    shards: dict[str, int]  # split -> shards
    fields: dict[str, int]  # field -> samples that have it
    classes: list[str] | None
    left_out: list[LeftOut]  # every file that is not packed
    lacking: list[LeftOut]  # what no file is there for: a sample that lacks a sensor
    notes: list[str]  # what was read in a way that could be another, nodata, ...

    def summary(self) -> list[str]:
        """What was made, and what was left out by reason, in lines for a screen."""
        listed = self.destination / "left_out.tsv"
        lines = [
            f"{self.destination / split}: {counted(count, 'sample')} in {counted(self.shards[split], 'shard')}"
            for split, count in self.samples.items()
        ]
        lines.append("fields: " + ", ".join(f"{field} in {count:,}" for field, count in self.fields.items()))
        if self.classes:
            lines.append(
                f"{counted(len(self.classes), 'class', 'classes')}, named in {self.destination / 'classes.txt'}"
            )
        lines += [f"note: {note}" for note in self.notes]
        if self.left_out:
            lines += [f"left out: {counted(len(self.left_out), 'file')}, listed in {listed}", *_grouped(self.left_out)]
        if self.lacking:
            lines += [f"incomplete samples, listed in {listed}:", *_grouped(self.lacking)]
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
    """Pack `source` into shards of `per_shard` samples under `destination`, in an order fixed by `seed`.

    Every file of a source is packed, or told in `Packed.left_out`. `val` is the share held out where the source has no
    split of its own, class by class where there are labels. `root` is where torchvision keeps its downloads. Raises
    `RecipeError` for a source that is none, `DataError` where its files cannot be used or some of them could only be
    kept in part, `OutputError` where `destination` holds something, now or when all is packed, or cannot be made,
    `StorageError` where writing fails; an interrupted pack leaves no destination behind. Of several packs of one
    destination at once, one ends well, and the others with `OutputError` while its shards lie there whole.
    """
    destination = home_path(destination)
    if per_shard < 1 or not 0 <= val < 1 or seed < 0:
        raise RecipeError(
            f"pack: per_shard={per_shard} must be at least 1, val={val} from 0 to below 1, seed={seed} at least 0"
        )
    opened = _open(source, None if root is None else home_path(root))
    _refuse_different(opened)
    material = _held_out(opened, val, seed)
    aside = _aside(destination, _source_folder(source))
    try:
        packed = _write(material, aside, destination, seed, per_shard, progress)
        os.rename(aside, destination)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise OutputError(
                f"{destination} was filled by someone else in the meantime, who may have packed the same: what lies "
                "there is kept, and what was packed here is not"
            ) from None
        raise StorageError(f"packing to {destination} failed: {error.strerror or error}; nothing was kept") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    with contextlib.suppress(MvsslError):  # an index is made again when it is missing
        build(sorted(destination.glob("*/*.tar")), progress, digests=True)
    return packed


def pack_destination(source: str, root: Path) -> Path:
    """Where a recipe's `data.pack` goes: root/digits, root/cifar10 for torchvision:CIFAR10, else root/STEM of a path.

    Raises `RecipeError` where that is the source itself.
    """
    kind, _, rest = source.partition(":")
    if kind == "torchvision":
        return root / rest.lower()
    path = home_path(rest if kind in ("classes", "pairs") else source)
    whole = path.absolute()
    destination = root / (whole.stem if whole.suffix == ".npz" else whole.name)
    if path.is_dir() and destination.resolve() == path.resolve():
        raise RecipeError(
            f"data.pack: {path} would be packed onto itself; set data.root to another folder than its own"
        )
    return destination


def _open(source: str, root: Path | None) -> Material:
    kind, colon, rest = source.partition(":")
    if source == "digits":
        return sources.digits()
    if colon and kind == "torchvision":
        return sources.torchvision_set(rest, root)
    named = kind if colon and kind in ("classes", "pairs") else None
    path = home_path(rest if named else source)
    if path.is_dir():
        return folders.folder(path, named)
    if path.is_file() and path.suffix == ".npz":
        return npz.arrays(path)
    raise RecipeError(
        f"nothing to pack at {source!r} (accepted: digits, torchvision:NAME such as torchvision:CIFAR10, a folder of "
        "images, classes:FOLDER, pairs:FOLDER with a folder per sensor, FILE.npz)"
    )


def _grouped(left_out: list[LeftOut]) -> list[str]:
    """A line for each reason, the commonest first, with its first file."""
    groups: dict[str, list[LeftOut]] = {}
    for one in left_out:
        groups.setdefault(one.reason.partition(":")[0], []).append(one)
    listed = sorted(groups.values(), key=len, reverse=True)
    lines = [f"  {len(group):,}  {group[0].reason} ({group[0].path})" for group in listed[:_REASONS]]
    more = sum(map(len, listed[_REASONS:]))
    return [*lines, f"  {more:,}  for other reasons"] if more else lines


def _refuse_different(material: Material) -> None:
    """Raises `DataError` where the source's own splits differ in their fields."""
    train = material.splits["train"].holds
    for name, split in material.splits.items():
        if split.holds != train:
            raise DataError(
                f"train has the fields {', '.join(sorted(train))}, and {name} has {', '.join(sorted(split.holds))}; "
                "every split needs the same. Complete it, or move what one of them lacks out of the source"
            )


def _held_out(material: Material, share: float, seed: int) -> Material:
    """The material with part of train as val, unless it has splits of its own."""
    train = material.splits["train"]
    if material.fixed or share == 0:
        return material
    count = max(1, round(train.count * share))
    if count >= train.count:
        raise DataError(f"{counted(train.count, 'sample')} cannot be divided into train and val; set val to 0")
    val = _chosen(train, count, np.random.default_rng(seed))
    kept = np.setdiff1d(np.arange(train.count), val)
    return material._replace(splits={"train": _part(train, kept), "val": _part(train, val)})


def _chosen(split: Split, count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` samples, the same share of every class: the shuffled samples sorted by how far into its class each is."""
    shuffled = generator.permutation(split.count)
    if split.labels is None:
        return np.sort(shuffled[:count])
    labels = np.asarray(split.labels)[shuffled]
    depth = np.zeros(split.count)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        depth[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
    return np.sort(shuffled[np.argsort(depth, kind="stable")[:count]])


def _part(split: Split, rows: np.ndarray) -> Split:
    name = split.name
    return Split(
        len(rows),
        lambda i: split.fields(int(rows[i])),
        name=None if name is None else lambda i: name(int(rows[i])),
    )


def _source_folder(source: str) -> Path | None:
    kind, _, rest = source.partition(":")
    path = home_path(rest if kind in ("classes", "pairs") else source)
    return path if path.is_dir() else None


def _aside(destination: Path, source_folder: Path | None) -> Path:
    """A new folder beside the destination. Raises `OutputError`."""
    try:
        inside = source_folder is not None and source_folder.resolve() in destination.absolute().resolve().parents
        if inside:
            raise OutputError(f"{destination} lies inside {source_folder}, which is packed; pack to a folder elsewhere")
        if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
            raise OutputError(f"{destination} exists and is not an empty folder; pack to a new one, or remove it")
        aside = destination.absolute().with_name(f".{destination.absolute().name}.packing-{secrets.token_hex(4)}")
        aside.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{destination} cannot be made: {error.strerror}") from None
    return aside


def _write(material: Material, aside: Path, destination: Path, seed: int, per_shard: int, progress: bool) -> Packed:
    fields: dict[str, int] = {}
    forms: dict[str, Counter[str]] = {}
    samples, shards = {}, {}
    account = material.account or Account()
    for name, split in material.splits.items():
        (aside / name).mkdir()
        samples[name] = write_split(split, aside / name, seed, per_shard, progress, fields, forms)
        shards[name] = len(list((aside / name).glob("*.tar")))
        if not samples[name]:
            last = account.left_out[-1]
            raise DataError(f"no file of {name} could be packed ({printable(last.path)}: {last.reason})")
    for field, kinds in forms.items():
        if len(kinds) > 1:
            listed = ", ".join(f"{form} in {count:,}" for form, count in kinds.most_common(6))
            account.note(f"the samples of {field} are of several kinds ({listed}), and a column takes one")
    if material.classes:
        (aside / "classes.txt").write_text("".join(f"{one_line(one)}\n" for one in material.classes))
    told = [*account.left_out, *account.lacking]
    if told:
        (aside / "left_out.tsv").write_text("".join(f"{one_line(one.path)}\t{one_line(one.reason)}\n" for one in told))
    return Packed(
        destination, samples, shards, fields, material.classes, account.left_out, account.lacking, account.notes
    )
