"""Export: each encoder of a run as a timm / Hugging Face folder, reloaded and compared before it counts.

in   a run folder
out  config.json, model.safetensors and README.md per encoder; stock models load where mvssl is not installed:
     timm.create_model("local-dir:FOLDER", pretrained=True, num_classes=0)
"""

import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mvssl.encoders import Encoder
from mvssl.errors import OutputError, StorageError
from mvssl.jsons import parsed
from mvssl.modelcard import Card, imports, write_card
from mvssl.names import which_weights

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


def export(run: Any, destination: str | Path) -> list[Report]:
    """Export every encoder of `run`, a run folder or a `LoadedRun`: one to `destination`, several to its subfolders.

    Raises `OutputError` where the destination holds something else or the reloaded model differs, `StorageError` where
    writing fails, and what `load_run` raises.
    """
    if isinstance(run, str | Path):
        from mvssl.run import load_run  # not above: a loaded run needs no loader

        run = load_run(run)
    encoders, folders = run.model.encoders, folders_of(list(run.model.encoders), Path(destination))
    return [export_encoder(encoders[group], folder, Card.of_run(run, group)) for group, folder in folders.items()]


def folders_of(groups: list[str], destination: Path) -> dict[str, Path]:
    """Where each encoder goes: one to `destination`, several to its subfolders. Raises `OutputError`."""
    folders = {group: destination / group if len(groups) > 1 else destination for group in groups}
    for folder in folders.values():
        check_destination(folder)
    return folders


def export_encoder(encoder: Encoder, destination: Path, card: Card) -> Report:
    """Write one encoder as a timm folder, reload it from there, compare, and only then put it at `destination`."""
    check_destination(destination)
    try:
        destination.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}-") as aside:
            folder = Path(aside)
            weights = {key: value.detach().cpu().contiguous() for key, value in encoder.model.state_dict().items()}
            (folder / "config.json").write_text(json.dumps(config(encoder, card), indent=2))
            save_file(_separate(weights), folder / "model.safetensors", metadata={"format": "pt"})
            shutil.copymode(folder / "config.json", folder / "model.safetensors")  # safetensors makes private files
            difference = compare(encoder, folder)
            if not difference <= TOLERANCE:
                raise OutputError(
                    f"{encoder.name}, reloaded in timm {timm.__version__}, differs from the trained encoder by "
                    f"{difference:.1e} (accepted: {TOLERANCE:.0e}); nothing was written to {destination}"
                )
            write_card(folder / "README.md", encoder, card, difference)
            for file in folder.iterdir():
                os.replace(file, destination / file.name)
    except OSError as error:
        raise StorageError(f"{destination} could not be written: {error.strerror or error}") from error
    return Report(
        destination,
        encoder.name,
        encoder.widths.vector,
        difference,
        imports(encoder),
        which_weights(card.step, card.checkpoint),
    )


def check_destination(folder: Path) -> None:
    """Refuse to write where something other than an earlier export lies. Raises `OutputError`."""
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file; name a new folder")
    if folder.is_dir() and any(folder.iterdir()) and not _is_export(folder):
        raise OutputError(f"{folder} is not empty and no earlier export; name a new folder")


def _is_export(folder: Path) -> bool:
    try:
        config = parsed((folder / "config.json").read_text(errors="replace"))
    except OSError:
        return False
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
