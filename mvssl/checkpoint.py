"""Checkpoints that are whole or not there: written aside, hashed, renamed; the newest that verifies is loaded.

    RUN/checkpoints/step-00000500/model.safetensors       weights and buffers
                                  optimizer.safetensors   moments and step counts by parameter name
                                  state.json              step, seed, data fingerprint, counts
                                  ...                     further tensors that a run keeps, by file name
                                  MANIFEST.json           sha256 and size of each of these

The state of a step that was checked on held-out samples holds their loss; the best of them is never deleted.
There is no loader, sampler or generator state: position and draws are functions of the step.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mvssl.errors import DataError, StorageError
from mvssl.jsons import is_state, parsed

MANIFEST = "MANIFEST.json"
FILES = {"model.safetensors", "optimizer.safetensors", "state.json"}


def save_checkpoint(
    run: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    keep: int,
    more: Mapping[str, dict[str, Tensor]] | None = None,
) -> Path:
    """Write the checkpoint of `step`, then delete all but the newest `keep` and the best.

    `more` are further tensors by file name.

    Raises `StorageError`, leaving the earlier checkpoints and no debris.
    """
    files = {
        "model.safetensors": save(_contiguous(model.state_dict())),
        "optimizer.safetensors": save(_contiguous(_moments(model, optimizer))),
        "state.json": json.dumps({"step": step, **state}, indent=1).encode(),
        **{name: save(_contiguous(tensors)) for name, tensors in (more or {}).items()},
    }
    manifest = {name: {"sha256": hashlib.sha256(body).hexdigest(), "bytes": len(body)} for name, body in files.items()}
    files[MANIFEST] = json.dumps(manifest, indent=1).encode()
    folder = run / "checkpoints"
    final, aside = folder / f"step-{step:08d}", folder / f".writing-{step:08d}-{os.getpid()}"
    try:
        for debris in [*folder.glob(".writing-*"), *folder.glob(".old-*")]:
            shutil.rmtree(debris, ignore_errors=True)
        aside.mkdir(parents=True)
        for name, body in files.items():
            _write_durably(aside / name, body)
        _sync_folder(aside)
        if final.exists():
            final.rename(folder / f".old-{step:08d}-{os.getpid()}")
        aside.rename(final)
        _sync_folder(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        said = f"checkpoint {final} could not be written: {error.strerror}; earlier ones are intact"
        raise StorageError(said) from error
    # What is newer than this step did not verify, or the run would have gone on from there: it must not count as kept.
    useless = [other for other in _steps(run) if other.name > final.name]
    whole = [other for other in _steps(run) if other not in useless]
    first = next(iter(_ranked(whole)), None)
    for old in [*useless, *(other for other in whole[keep:] if other != first), *folder.glob(".old-*")]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def newest(run: Path) -> Path | None:
    """The newest checkpoint whose files are as their manifest says, or None where there is none at all.

    Raises `DataError` when there are checkpoints but none verifies.
    """
    found = _steps(run)
    for checkpoint in found:
        if not faults(checkpoint):
            return checkpoint
    if found:
        raise DataError(f"no checkpoint in {run} verifies: " + "; ".join(faults(found[0])))
    return None


def best(run: Path) -> Path:
    """The checkpoint with the lowest held-out loss among those that verify. Raises `DataError` if none has one.

    Losses are compared where they are of the same samples under the same schedules as the newest.
    """
    for found in _ranked(_steps(run)):
        if not faults(found):
            return found
    raise DataError(
        f"no checkpoint in {run} has a held-out loss: checks measure it where the recipe names data.val; "
        "take --checkpoint last"
    )


def at_step(run: Path, step: int) -> Path:
    """The checkpoint of a step. Raises `DataError` where it is not there or damaged, and says which are."""
    found = run / "checkpoints" / f"step-{step:08d}"
    if not found.is_dir():
        there = ", ".join(str(int(other.name.removeprefix("step-"))) for other in reversed(_steps(run)))
        raise DataError(f"{run} has no checkpoint of step {step} (there are: {there or 'none'})")
    if wrong := faults(found):
        raise DataError("; ".join(wrong))
    return found


def would_be_best(run: Path, held_out: dict[str, Any]) -> bool:
    """Whether no checkpoint of the run has as low a held-out loss, measured on the same."""
    losses = [other["loss"] for other in map(_held_out, _steps(run)) if other and other["of"] == held_out["of"]]
    return all(held_out["loss"] < loss for loss in losses)


def _ranked(checkpoints: list[Path]) -> list[Path]:
    """Those with a held-out loss that compares with the newest one's, the lowest first, of equals the earlier."""
    known = [(found, held_out) for found in checkpoints if (held_out := _held_out(found))]
    alike = [(held_out["loss"], found.name, found) for found, held_out in known if held_out["of"] == known[0][1]["of"]]
    return [found for _, _, found in sorted(alike)]


def _held_out(checkpoint: Path) -> dict[str, Any] | None:
    """The held-out loss of a checkpoint and what it was measured on."""
    try:
        held_out = load_state(checkpoint).get("held_out")
    except (OSError, DataError):
        return None
    return held_out if isinstance(held_out, dict) and {"loss", "of"} <= held_out.keys() else None


def faults(checkpoint: Path) -> list[str]:
    """What is wrong with a checkpoint's files; nothing, if it verifies."""
    try:
        manifest = parsed((checkpoint / MANIFEST).read_text(errors="replace"))
    except OSError:
        manifest = None
    if (
        not isinstance(manifest, dict)
        or not manifest.keys() >= FILES
        or not all(isinstance(entry, dict) and "sha256" in entry for entry in manifest.values())
    ):
        return [f"{checkpoint.name}/{MANIFEST} is missing or damaged"]
    wrong = []
    for name, entry in manifest.items():
        with contextlib.suppress(OSError, ValueError), open(checkpoint / name, "rb") as file:  # a name may be any text
            if hashlib.file_digest(file, "sha256").hexdigest() == entry["sha256"]:
                continue
        wrong.append(f"{checkpoint.name}/{name} is missing or damaged")
    return wrong


def digest(checkpoint: Path) -> str:
    """sha256 of the manifest, which holds those of the files; empty where there is none."""
    with contextlib.suppress(OSError):
        return hashlib.sha256((checkpoint / MANIFEST).read_bytes()).hexdigest()
    return ""


def load_model(checkpoint: Path) -> dict[str, Tensor]:
    """The model's state dict, on the CPU."""
    return load_file(checkpoint / "model.safetensors")


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Step, seed, fingerprint and counts. Raises `DataError` where they are not what a run writes."""
    state = parsed((checkpoint / "state.json").read_text(errors="replace"))
    if not is_state(state):
        raise DataError(f"{checkpoint / 'state.json'} is damaged: it holds no state of a run")
    return state


def restore(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put weights, buffers and moments back as they were; returns the state."""
    model.load_state_dict(load_model(checkpoint))
    moments = load_file(checkpoint / "optimizer.safetensors")
    for name, parameter in model.named_parameters():
        kept = {key.split("/", 1)[0]: value for key, value in moments.items() if key.split("/", 1)[1] == name}
        if kept:
            optimizer.state[parameter] = {key: _laid_out_as(parameter, value) for key, value in kept.items()}
    return load_state(checkpoint)


def _laid_out_as(parameter: nn.Parameter, moment: Tensor) -> Tensor:
    """On the parameter's device and, as the fused optimizer walks memory, with its strides."""
    if moment.shape != parameter.shape:
        return moment.to(parameter.device)
    return torch.empty_like(parameter, requires_grad=False).copy_(moment)


def _steps(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*"), reverse=True)


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{key}/{name}": value
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, one copy each: safetensors refuses tensors that share memory."""
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}


def _write_durably(path: Path, body: bytes) -> None:
    with open(path, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
