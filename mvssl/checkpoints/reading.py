"""The files of one checkpoint: verify them and read them.

in   the folder of a checkpoint
out  its damaged files; its state, its tensors, a model and an optimizer with its values
"""

import contextlib
import json
import re
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mvssl.checkpoints.state import State
from mvssl.errors import DataError, StorageError
from mvssl.files import hash_file, parse_json

MANIFEST, RECIPE = "MANIFEST.json", "recipe.yaml"
FILES = {"model.safetensors", "optimizer.safetensors", "state.json"}
STEP = re.compile(r"step-(\d{8,})")
ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
REPLACED = re.compile(r"\.old-(\d{8,})-\d+")  # versions before 0.2 moved a checkpoint there while they replaced it


class ManifestEntry(BaseModel):
    """A file in MANIFEST.json."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sha256: str
    bytes: int


ENTRIES = TypeAdapter(dict[str, ManifestEntry])


def find_damage(checkpoint: Path) -> list[str]:
    """Return a message for each damaged file of a checkpoint; no message means that it verifies.

    Raise `StorageError` if the disk or the network fails, because the files may still be intact.
    """
    file = checkpoint / MANIFEST
    try:
        manifest = _read_manifest(file)
        wrong = [] if manifest else [MANIFEST]
        for name, entry in manifest.items():
            file = checkpoint / name
            if not _is_intact(file, entry):
                wrong.append(name)
    except OSError as error:
        hint = "repeat the same command when the disk works again"
        raise StorageError(f"{file} cannot be read: {error.strerror}; {hint}") from None
    if wrong:
        return [f"{checkpoint.name}/{name} is missing or damaged" for name in wrong]
    try:
        load_state(checkpoint)
    except DataError as error:
        return [str(error)]
    return []


def _read_manifest(file: Path) -> dict[str, ManifestEntry]:
    """Return the entries, or none if a byte differs from the text that `save_checkpoint` writes."""
    try:
        text = file.read_bytes()
        manifest = ENTRIES.validate_json(text)
    except (*ABSENT, ValidationError):
        return {}
    # no name may hold "/", so that a manifest names no file outside its folder
    valid = manifest.keys() >= FILES and not any("/" in name for name in manifest)
    return manifest if valid and manifest_text(manifest) == text else {}


def _is_intact(file: Path, entry: ManifestEntry) -> bool:
    try:
        return file.stat().st_size == entry.bytes and hash_file(file) == entry.sha256
    except ABSENT:
        return False


def manifest_text(manifest: dict[str, ManifestEntry]) -> bytes:
    """Return the text of MANIFEST.json."""
    return json.dumps({name: entry.model_dump() for name, entry in manifest.items()}, indent=1).encode()


def digest(checkpoint: Path) -> str:
    """Return the sha256 of the manifest, which holds those of the files, or "" if there is no manifest."""
    with contextlib.suppress(OSError):
        return hash_file(checkpoint / MANIFEST)
    return ""


def load_model(checkpoint: Path) -> dict[str, Tensor]:
    """Return the model's state dict, on the CPU. Raise `DataError`."""
    return load_tensors(checkpoint / "model.safetensors")


def load_tensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file of a checkpoint, on the CPU. Raise `DataError`."""
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{file} cannot be read as tensors: {error}") from None


def load_state(checkpoint: Path) -> State:
    """Return step, fingerprint and counts. Raise `DataError` if state.json is damaged."""
    where = f"{checkpoint.name}/state.json"
    try:
        state = State.parse(parse_json((checkpoint / "state.json").read_text(errors="replace")))
    except OSError as error:
        raise DataError(f"{where} cannot be read: {error.strerror}") from None
    if state is None or state.step != step_in_name(checkpoint):
        raise DataError(f"{where} is damaged: it is not the state of step {step_in_name(checkpoint)} of a run")
    return state


def load_into(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """Load weights, buffers and moments into `model` and `optimizer`, and return the state. Raise `DataError`."""
    try:
        model.load_state_dict(load_model(checkpoint))
        kept: dict[str, dict[str, Tensor]] = {}
        for key, value in load_tensors(checkpoint / "optimizer.safetensors").items():
            kind, _, name = key.partition("/")
            kept.setdefault(name, {})[kind] = value
        for name, parameter in model.named_parameters():
            if name in kept:
                found = {kind: _laid_out_as(parameter, value) for kind, value in kept.pop(name).items()}
                optimizer.state[parameter] = found
    except RuntimeError as error:
        raise DataError(f"{checkpoint} does not fit the model: {str(error).splitlines()[0]}") from None
    if kept:
        raise DataError(f"{checkpoint}/optimizer.safetensors holds {next(iter(kept))!r}, which the model lacks")
    return load_state(checkpoint)


def _laid_out_as(parameter: nn.Parameter, moment: Tensor) -> Tensor:
    """Return the moment on the parameter's device, with its strides: the fused optimizer needs equal memory formats."""
    if moment.shape != parameter.shape:
        return moment.to(parameter.device)
    return torch.empty_like(parameter, requires_grad=False).copy_(moment)


def step_in_name(checkpoint: Path) -> int:
    """Return the step in a checkpoint's name, or -1 if the name has none."""
    match = STEP.fullmatch(checkpoint.name) or REPLACED.fullmatch(checkpoint.name)
    return int(match[1]) if match else -1


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's tensors by `KIND/PARAMETER`, for example exp_avg/encoders.left.model.conv1.weight."""
    return {
        f"{key}/{name}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }
