"""Export each encoder of a run as a timm / Hugging Face folder, after a reloaded copy gave the same output.

in   a run folder
out  config.json, model.safetensors and README.md per encoder; timm's own models load without mvssl:
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
from torch import Tensor

from mvssl.distributed.devices import enough_memory
from mvssl.encoders import Encoder
from mvssl.errors import DataError, OutputError
from mvssl.evaluation.features.extraction import DIVERGED
from mvssl.exporting.model_card import Card, needed_imports, write_card
from mvssl.files import read_json, write_errors, written_beside
from mvssl.runs.load import LoadedRun, open_run, which_weights

TOLERANCE = 1e-5


class ExportedEncoder(NamedTuple):
    """One exported encoder: its folder, and the largest difference of its output after reloading."""

    folder: Path
    name: str
    width: int
    max_difference: float
    imports: str  # the modules to import before loading: timm, or mvssl as well
    weights: str = ""  # a text that says which weights of the run these are

    @property
    def load(self) -> str:
        """A shell command that loads the encoder."""
        place = f"local-dir:{self.folder}"
        code = f"import {self.imports}; print(timm.create_model({place!r}, pretrained=True, num_classes=0))"
        return f'python -c "{code}"' if not set(code) & set('"$`\\!') else f"python -c {shlex.quote(code)}"

    def __str__(self) -> str:
        checked = f"reloaded in timm, largest difference {self.max_difference:.1e}"
        parts = filter(None, [self.name, f"{self.width} features", self.weights, checked])
        return f"{self.folder}: {', '.join(parts)}"


@enough_memory("the encoders must fit into memory twice; export on a larger machine")
def export(
    run: str | Path | LoadedRun,
    destination: str | Path,
    *,
    checkpoint: str | int = "last",
    trust: Iterable[str] = (),
) -> list[ExportedEncoder]:
    """Export every encoder of a run and return a report of each.

    A single encoder is written to `destination`, several to subfolders of it. Either all encoders are exported or none.
    `load_run` opens a run folder with `trust` and `checkpoint`. A `LoadedRun` is used as it is.

    Raise `OutputError` if the destination holds other files or cannot be made, or if a reloaded model differs. Raise
    `DataError` if an encoder has diverged, and `StorageError` if writing fails. `load_run` may raise its own errors.
    """
    run = open_run(run, trust, checkpoint)
    encoders = run.model.encoders
    folders = folders_of(list(encoders), Path(destination))
    cards = {group: Card.of_run(run, group) for group in folders}
    with _put_at_end(Path(destination)) as beside:
        return [
            _write(encoders[group], beside / folder.relative_to(destination), cards[group], folder)  # pyright: ignore[reportArgumentType]
            for group, folder in folders.items()
        ]


def folders_of(groups: list[str], destination: Path) -> dict[str, Path]:
    """Return the folder of each encoder: one at `destination`, several in its subfolders. Raise `OutputError`."""
    folders = {group: destination / group if len(groups) > 1 else destination for group in groups}
    for folder in folders.values():
        check_destination(folder)
    return folders


def export_encoder(encoder: Encoder, destination: Path, card: Card) -> ExportedEncoder:
    """Write one encoder as a timm folder, reload it, compare it, and then put it at `destination`."""
    check_destination(destination)
    with _put_at_end(destination) as beside:
        return _write(encoder, beside, card, destination)


def _write(encoder: Encoder, folder: Path, card: Card, destination: Path) -> ExportedEncoder:
    """Write a new folder, for `destination`, and reload it. Raise `OutputError` if the reloaded model differs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(build_config(encoder, card), indent=2))
    weights: dict[str, Tensor] = {}
    places: set[int] = set()
    for key, value in encoder.model.state_dict().items():
        value = value.detach().cpu().contiguous()
        # safetensors refuses tensors that share memory, as tied weights do
        weights[key] = value.clone() if value.data_ptr() in places else value
        places.add(value.data_ptr())
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # safetensors writes private files
    difference = measure_difference(encoder, folder)
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
    weights_text = which_weights(card.step, card.checkpoint)
    return ExportedEncoder(
        destination, encoder.name, encoder.widths.vector, difference, needed_imports(encoder), weights_text
    )


@contextlib.contextmanager
def _put_at_end(destination: Path) -> Iterator[Path]:
    """Yield a new folder beside `destination`, and move its files there at the end. A failure leaves no files."""
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
    """Move a folder to `place`. If `place` exists, move the files one by one, because other files there are kept."""
    if not place.exists():
        os.rename(beside, place)
        return
    files = [file.relative_to(beside) for file in beside.rglob("*") if file.is_file()]

    def move_files() -> None:
        for file in files:
            if (beside / file).exists():
                (place / file).parent.mkdir(exist_ok=True)
                os.replace(beside / file, place / file)

    try:
        move_files()
    finally:  # a signal may have come between two files, and an old file does not fit a new one
        move_files()


def check_destination(folder: Path) -> None:
    """Raise `OutputError` if the folder holds anything but an earlier export."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a new folder")
    config = read_json(folder / "config.json")
    is_export = isinstance(config, dict) and "mvssl" in config
    if folder.is_dir() and any(folder.iterdir()) and not is_export:
        raise OutputError(f"{folder} is not empty and holds no earlier export; name a new folder")


def build_config(encoder: Encoder, card: Card) -> dict[str, Any]:
    """Return the content of config.json for timm: how to build the model, and its input."""
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
            # earlier timm (observed: 1.0.20) assumes 3 channels and draws a new first layer for other numbers
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
    """Return one number for each channel. A single number is repeated. Raise `OutputError` if the lengths differ."""
    if len(values) not in (1, channels):
        raise OutputError(f"{what} has {len(values)} numbers for {channels} channels; one or {channels} are needed")
    return [float(values[i % len(values)]) for i in range(channels)]


def measure_difference(encoder: Encoder, folder: Path) -> float:
    """Return the largest difference between the encoder's vector and the output of the model in `folder`."""
    reloaded = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    parameter, training = next(encoder.parameters()), encoder.training
    x = torch.randn(4, *encoder.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = encoder.eval()(x.to(parameter.device, parameter.dtype)).vector.double().cpu()
        theirs = reloaded(x).double()
    encoder.train(training)
    return float((ours - theirs).abs().max()) if ours.shape == theirs.shape else float("inf")
