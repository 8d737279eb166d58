"""Export: each encoder of a run as a timm / Hugging Face folder, reloaded and compared before it counts.

in   a run folder
out  config.json, model.safetensors and README.md per encoder; stock models load where mvssl is not installed:
     timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=0)
"""

import contextlib
import json
import math
import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mvssl.distributed.devices import enough_memory
from mvssl.encoders import Encoder
from mvssl.errors import DataError, OutputError
from mvssl.evaluation.features.extraction import DIVERGED
from mvssl.exporting.model_card import Card, imports, write_card
from mvssl.files import read_json, write_errors, written_beside
from mvssl.runs.load import LoadedRun, load_run, which_weights

TOLERANCE = 1e-5


class Report(NamedTuple):
    """One exported encoder: where it is and how far the reloaded model's output is from the original's."""

    folder: Path
    name: str
    width: int
    max_difference: float
    imports: str  # what loading it needs: timm, or mvssl as well
    weights: str = ""  # which of the run's, in words

    @property
    def load(self) -> str:
        """A line of shell that loads it."""
        place = f"local-dir:{self.folder}"
        code = f"import {self.imports}; print(timm.create_model({place!r}, pretrained=True, num_classes=0))"
        return f'python -c "{code}"' if not set(code) & set('"$`\\!') else f"python -c {shlex.quote(code)}"

    def __str__(self) -> str:
        checked = f"reloaded in timm, largest difference {self.max_difference:.1e}"
        said = filter(None, [self.name, f"{self.width} features", self.weights, checked])
        return f"{self.folder}: {', '.join(said)}"


@enough_memory("the encoders must fit into memory twice; export on a larger machine")
def export(
    run: str | Path | LoadedRun,
    destination: str | Path,
    *,
    checkpoint: str | int = "last",
    trust: Iterable[str] = (),
) -> list[Report]:
    """Export every encoder of a run: one to `destination`, several to its subfolders.

    A run folder is opened by `load_run` with `trust` and `checkpoint`; a `LoadedRun` is taken as it is.

    All of them are there in the end, or none. Raises `OutputError` where the destination holds something else, cannot
    be made, or the reloaded model differs, `DataError` where an encoder has diverged, `StorageError` where writing
    fails, and what `load_run` raises.
    """
    run = load_run(run, trust, checkpoint) if isinstance(run, str | Path) else run
    encoders, folders = run.model.encoders, folders_of(list(run.model.encoders), Path(destination))
    cards = {group: Card.of_run(run, group) for group in folders}
    with _placed(Path(destination)) as aside:
        return [
            _write(encoders[group], aside / folder.relative_to(destination), cards[group], folder)  # pyright: ignore[reportArgumentType]
            for group, folder in folders.items()
        ]


def folders_of(groups: list[str], destination: Path) -> dict[str, Path]:
    """Where each encoder goes: one to `destination`, several to its subfolders. Raises `OutputError`."""
    folders = {group: destination / group if len(groups) > 1 else destination for group in groups}
    for folder in folders.values():
        check_destination(folder)
    return folders


def export_encoder(encoder: Encoder, destination: Path, card: Card) -> Report:
    """Write one encoder as a timm folder, reload it from there, compare, and only then put it at `destination`."""
    check_destination(destination)
    with _placed(destination) as aside:
        return _write(encoder, aside, card, destination)


def _write(encoder: Encoder, folder: Path, card: Card, destination: Path) -> Report:
    """Write a new folder, for `destination`, and reload it. Raises `OutputError` where the reloaded model differs."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {key: value.detach().cpu().contiguous() for key, value in encoder.model.state_dict().items()}
    (folder / "config.json").write_text(json.dumps(config(encoder, card), indent=2))
    save_file(_separate(weights), folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # safetensors makes private files
    difference = compare(encoder, folder)
    if math.isnan(difference):
        raise DataError(
            f"{encoder.name} gives NaN or infinite features on random input: {DIVERGED}; nothing was written to "
            f"{destination}"
        )
    if not difference <= TOLERANCE:
        raise OutputError(
            f"{encoder.name}, reloaded in timm {timm.__version__}, differs from the trained encoder by "
            f"{difference:.1e} (accepted: {TOLERANCE:.0e}); nothing was written to {destination}"
        )
    write_card(folder / "README.md", encoder, card, difference)
    return Report(
        destination,
        encoder.name,
        encoder.widths.vector,
        difference,
        imports(encoder),
        which_weights(card.step, card.checkpoint),
    )


@contextlib.contextmanager
def _placed(destination: Path) -> Iterator[Path]:
    """Give a new folder beside `destination`, whose files are put there at the end; a failure leaves nothing behind."""
    place = Path(os.path.realpath(destination))
    missing = [folder for folder in place.parents if not folder.exists()]
    try:
        with write_errors(destination, OutputError, "; name another folder"):
            place.parent.mkdir(parents=True, exist_ok=True)
            with written_beside(place, put=_put) as beside:
                beside.mkdir()
                yield beside
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _put(beside: Path, place: Path) -> None:
    """Put a folder at `place`: by a rename where that is new, else file by file, as other files there stay."""
    if not place.exists():
        os.rename(beside, place)
        return
    files = [file for file in beside.rglob("*") if file.is_file()]
    try:
        _replace(files, beside, place)
    finally:  # also where a signal ended the work between two files: an old one and a new one do not fit
        _replace(files, beside, place)


def _replace(files: list[Path], beside: Path, place: Path) -> None:
    for file in files:
        if file.exists():
            there = place / file.relative_to(beside)
            there.parent.mkdir(exist_ok=True)
            os.replace(file, there)


def check_destination(folder: Path) -> None:
    """Refuse to write where something other than an earlier export lies. Raises `OutputError`."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a new folder")
    if folder.is_dir() and any(folder.iterdir()) and not _is_export(folder):
        raise OutputError(f"{folder} is not empty and no earlier export; name a new folder")


def _is_export(folder: Path) -> bool:
    config = read_json(folder / "config.json")
    return isinstance(config, dict) and "mvssl" in config


def config(encoder: Encoder, card: Card) -> dict[str, Any]:
    """config.json as timm reads it: what builds the model, and what its input is."""
    source = dict(encoder.model.default_cfg)
    arguments = {key: value for key, value in encoder.arguments.items() if not key.startswith("drop")}
    c, h, w = encoder.image
    return {
        "architecture": encoder.name.partition(".")[0],
        "num_classes": 0,
        "num_features": encoder.widths.vector,
        "model_args": arguments,
        "pretrained_cfg": {
            "tag": "mvssl",
            "custom_load": False,
            "input_size": [c, h, w],
            "fixed_input_size": bool(source.get("fixed_input_size", False)),
            "interpolation": card.interpolation,
            "crop_pct": 1.0,
            "mean": per_channel(card.mean, c, "mean"),
            "std": per_channel(card.std, c, "std"),
            "num_classes": 0,
            # earlier timm (seen: 1.0.20) takes every source for 3 channels and redraws a first layer that has others
            "first_conv": source.get("first_conv") if c == 3 else None,
            "classifier": source.get("classifier"),
        },
        "mvssl": {
            "views": card.views,
            "bands": card.bands,
            "source": card.source,
            "step": card.step,
            "checkpoint": card.checkpoint,
        },
    }


def per_channel(values: Sequence[float], channels: int, what: str) -> list[float]:
    """A number for each channel: as given, or a single one repeated. Raises `OutputError` for any other count."""
    if len(values) not in (1, channels):
        raise OutputError(f"{what} has {len(values)} numbers for {channels} channels; one or {channels} are needed")
    return [float(values[i % len(values)]) for i in range(channels)]


def compare(encoder: Encoder, folder: Path) -> float:
    """Largest difference between the encoder's vector and the output of the model that timm loads from `folder`."""
    reloaded = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
    some = next(encoder.parameters())
    x = torch.randn(4, *encoder.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = _in_eval(encoder, x.to(some.device, some.dtype)).vector.double().cpu()
        theirs = _in_eval(reloaded, x).double()
    return float((ours - theirs).abs().max()) if ours.shape == theirs.shape else float("inf")


def _in_eval(model: nn.Module, x: Tensor) -> Any:
    training = model.training
    try:
        return model.eval()(x)
    finally:
        model.train(training)


def _separate(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tied weights as copies: safetensors refuses tensors that share memory."""
    seen: set[int] = set()
    return {key: t.clone() if t.data_ptr() in seen or seen.add(t.data_ptr()) else t for key, t in weights.items()}
