"""Make shards: shuffled, in webdataset's format, under train/ and val/.

in   an input: digits, torchvision:NAME, a folder of images or of paired sensors, an npz of arrays
out  DEST/train/000000.tar ..., DEST/val/..., each with names.tsv; DEST/classes.txt; DEST/left_out.tsv with each file
     that is not packed, and why; after an error, nothing at all
"""

import contextlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mvssl.data.packing.folders import open_folder
from mvssl.data.packing.named_sets import open_digits, open_torchvision_set
from mvssl.data.packing.npz import open_npz_file
from mvssl.data.packing.samples import LeftOut, PackInput, PackSplit
from mvssl.data.packing.shard_writer import one_line, write_split
from mvssl.data.shards.index_cache import index_shards
from mvssl.errors import DataError, MvsslError, OutputError, RecipeError
from mvssl.files import home_path, put_new, write_errors, written_beside
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
            lines.append(f"left out: {counted(len(self.left_out), 'file')}, listed in {listed}")
            lines += _count_reasons(self.left_out)
        if self.lacking:
            lines += [f"incomplete samples, listed in {listed}:", *_count_reasons(self.lacking)]
        return [printable(line) for line in lines]


def _count_reasons(left_out: list[LeftOut]) -> list[str]:
    """Return a line for each reason, the commonest first, with its first file."""
    groups: dict[str, list[LeftOut]] = {}
    for each in left_out:
        groups.setdefault(each.reason.partition(":")[0], []).append(each)
    ordered = sorted(groups.values(), key=len, reverse=True)
    lines = [f"  {len(group):,}  {group[0].reason} ({group[0].path})" for group in ordered[:_MOST_REASONS]]
    more = sum(map(len, ordered[_MOST_REASONS:]))
    return [*lines, f"  {more:,}  for other reasons"] if more else lines


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
    """Pack `source` into shards of `per_shard` samples under `destination`. `seed` determines their order.

    Every file of a source is packed, or listed in `Packed.left_out`. `val` is the held-out share if the source has no
    split of its own. If there are labels, this share of each class is held out. `root` is the folder of torchvision's
    downloads.

    Raise `RecipeError` for an unknown source. Raise `DataError` if its files cannot be used, or if only a part of some
    file could be kept. Raise `OutputError` if `destination` is not empty, before or after the work, or cannot be made.
    Raise `StorageError` if writing fails. After an error or an interrupt, `destination` is not created. If several
    processes pack to one destination at once, one succeeds and the others raise `OutputError`.
    """
    destination = home_path(destination)
    if per_shard < 1 or not 0 <= val < 1 or seed < 0:
        raise RecipeError(
            f"pack: per_shard={per_shard} must be at least 1, val={val} from 0 to below 1, seed={seed} at least 0"
        )
    opened = _open_input(source, None if root is None else home_path(root))
    parts = _hold_out(opened.splits, val, seed)
    _refuse_destination(destination, _split_source(source)[1])
    with write_errors(destination, hint="; nothing was kept"):
        try:
            with written_beside(destination.absolute(), put=put_new) as beside:
                with write_errors(destination, OutputError):
                    beside.mkdir(parents=True)
                packed = _write(opened, parts, beside, destination, seed, per_shard, progress)
        except FileExistsError:
            raise OutputError(
                f"{destination} was filled by another process in the meantime, perhaps from the same source. Its "
                "content is kept, and what was packed here is not"
            ) from None
    with contextlib.suppress(MvsslError):  # an index is made again when it is missing
        index_shards(sorted(destination.glob("*/*.tar")), progress, digests=True)
    return packed


def pack_destination(source: str, root: Path) -> Path:
    """Return the folder for a recipe's `data.pack`: root/digits, root/cifar10 for torchvision:CIFAR10, else root/STEM.

    Raise `RecipeError` if this folder is the source itself.
    """
    if source.startswith("torchvision:"):
        return root / source.partition(":")[2].lower()
    _, path = _split_source(source)
    full = path.absolute()
    destination = root / (full.stem if full.suffix == ".npz" else full.name)
    if path.is_dir() and destination.resolve() == path.resolve():
        raise RecipeError(
            f"data.pack: {path} would be packed onto itself; set data.root to another folder than its own"
        )
    return destination


def _split_source(source: str) -> tuple[str, Path]:
    """Return "classes" or "pairs", if the source begins with it, and the path of a folder or npz."""
    kind, colon, rest = source.partition(":")
    return (kind, home_path(rest)) if colon and kind in ("classes", "pairs") else ("", home_path(source))


def _open_input(source: str, root: Path | None) -> PackInput:
    if source == "digits":
        return open_digits()
    if source.startswith("torchvision:"):
        return open_torchvision_set(source.partition(":")[2], root)
    kind, path = _split_source(source)
    if path.is_dir():
        return open_folder(path, kind)
    if path.is_file() and path.suffix == ".npz":
        return open_npz_file(path)
    raise RecipeError(
        f"nothing to pack at {source!r} (accepted: digits, torchvision:NAME such as torchvision:CIFAR10, a folder of "
        "images, classes:FOLDER, pairs:FOLDER with a folder per sensor, FILE.npz)"
    )


def _hold_out(splits: dict[str, PackSplit], share: float, seed: int) -> dict[str, np.ndarray]:
    """Return the rows of each split to write. If there is only train, `share` of it becomes val, class by class."""
    train = splits["train"]
    if len(splits) > 1 or share == 0:
        return {name: np.arange(split.count) for name, split in splits.items()}
    count = max(1, round(train.count * share))
    if count >= train.count:
        raise DataError(f"{counted(train.count, 'sample')} cannot be divided into train and val; set val to 0")
    shuffled = np.random.default_rng(seed).permutation(train.count)
    if train.labels is not None:
        labels = np.asarray(train.labels)[shuffled]
        rank = np.zeros(train.count)  # 0 .. 1 in its class, so that the first rows have the same share of every class
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            rank[rows] = (np.arange(len(rows)) + 0.5) / len(rows)
        shuffled = shuffled[np.argsort(rank, kind="stable")]
    return {"train": np.sort(shuffled[count:]), "val": np.sort(shuffled[:count])}


def _refuse_destination(destination: Path, source: Path) -> None:
    with write_errors(destination, OutputError):
        if source.is_dir() and source.resolve() in destination.absolute().resolve().parents:
            raise OutputError(f"{destination} lies inside {source}, which is packed; pack to a folder elsewhere")
        if destination.exists() and not (destination.is_dir() and not any(destination.iterdir())):
            raise OutputError(f"{destination} exists and is not an empty folder; pack to a new one, or remove it")


def _write(
    opened: PackInput, parts: dict[str, np.ndarray], folder: Path, destination: Path, seed: int, per_shard: int,
    progress: bool,
) -> Packed:  # fmt: skip
    """Write the rows `parts` of every split, and the lists beside them, to `folder`, which becomes `destination`."""
    log, fields, kinds, samples, shards = opened.log, Counter(), Counter(), {}, {}
    for name, rows in parts.items():
        (folder / name).mkdir()
        split = opened.splits.get(name, opened.splits["train"])
        written = write_split(split, rows, folder / name, seed, per_shard, progress)
        if not written.samples:
            last = log.left_out[-1]
            raise DataError(f"no file of {name} could be packed ({printable(last.path)}: {last.reason})")
        samples[name], shards[name] = written.samples, written.shards
        fields.update(written.fields)
        kinds.update(written.kinds)
    for field in fields:
        counts = [(kind, count) for (of, kind), count in kinds.most_common() if of == field]
        if len(counts) > 1:
            listed = ", ".join(f"{kind} in {count:,}" for kind, count in counts[:6])
            log.add_note(f"the samples of {field} are of several kinds ({listed}), and a column takes one")
    lists = {
        "classes.txt": [one_line(name) for name in opened.classes or ()],
        "left_out.tsv": [f"{one_line(one.path)}\t{one_line(one.reason)}" for one in (*log.left_out, *log.lacking)],
    }
    for file, lines in lists.items():
        if lines:
            (folder / file).write_text("".join(f"{line}\n" for line in lines))
    return Packed(destination, samples, shards, dict(fields), opened.classes, log.left_out, log.lacking, log.notes)
